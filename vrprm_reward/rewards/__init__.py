"""From step scores to rewards: aggregation, credit per step, placement on tokens, advantages."""
