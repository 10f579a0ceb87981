"""What a forward pass costs, measured while working: so much for itself, so much per token."""

from dataclasses import dataclass

FORGETTING = 0.98
"""Weight of the past at each new pass."""

TOKENS_PER_STEP = 60
"""New tokens of one judgement: a history line, the step, the request."""

FIXED_POINT_PASSES = 4
"""Passes that judging at a fixed point takes: about two rounds of two passes."""

FIXED_POINT_EXTRA_WORK = 0.4
"""Tokens it pushes beyond the distinct ones, as a share of them."""


@dataclass
class PassCost:
    """Least squares of seconds = per_pass + per_token * tokens, with the past fading out."""

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    tokens_squared: float = 0.0
    tokens_seconds: float = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Learn from one pass."""
        self.weight = self.weight * FORGETTING + 1
        self.tokens = self.tokens * FORGETTING + tokens
        self.seconds = self.seconds * FORGETTING + seconds
        self.tokens_squared = self.tokens_squared * FORGETTING + tokens * tokens
        self.tokens_seconds = self.tokens_seconds * FORGETTING + tokens * seconds

    @property
    def per_token(self) -> float:
        """Seconds per token."""
        spread = self.weight * self.tokens_squared - self.tokens**2
        if spread <= 0:
            return 0.0
        return max(0.0, (self.weight * self.tokens_seconds - self.tokens * self.seconds) / spread)

    @property
    def per_pass(self) -> float:
        """Seconds of a pass beyond those of its tokens."""
        if self.weight == 0:
            return 0.0
        return max(0.0, (self.seconds - self.per_token * self.tokens) / self.weight)

    def fixed_point_pays(self, *, rollouts: int, steps: int) -> bool:
        """Whether saved passes outweigh repeated tokens.

        Lockstep takes a pass for each step; the fixed point takes a few passes and some tokens
        twice. Passes are shared by all rollouts at work, tokens are not.
        """
        saved = (steps - FIXED_POINT_PASSES) * self.per_pass
        repeated = FIXED_POINT_EXTRA_WORK * rollouts * steps * TOKENS_PER_STEP * self.per_token
        return saved > repeated
