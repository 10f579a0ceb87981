"""The tokens of a job that go into a forward pass, and what is noted once they have."""

import numpy as np

from vrprm_reward.engines.local.sequences import Job
from vrprm_reward.engines.local.tokens import Segment


def next_segment(job: Job, left: int) -> Segment:
    """The job's next tokens: its last generated one, or at most `left` of its prompt.

    A branch is not cut: all that is left of its prompt goes into one pass.
    """
    assert job.sequence is not None
    cache = job.sequence.cache
    if job.written:
        at = len(job) + len(job.written) - 1
        cache.reserve(at + 1, keep=at)
        position = int(job.prompt.positions[:, -1].max()) + len(job.written)
        return Segment(
            cache,
            start=at,
            ids=np.array(job.written[-1:], dtype=np.int64),
            positions=np.full((3, 1), position, dtype=np.int64),
            visual=np.full(1, -1, dtype=np.int64),
            features=None,
            keep=True,
            logits=True,
        )
    start = job.done
    end = min(len(job), start + left) if job.keep else len(job)
    visual = job.prompt.visual[start:end]
    return Segment(
        cache,
        start=start,
        ids=job.prompt.ids[start:end],
        positions=job.prompt.positions[:, start:end],
        visual=visual,
        features=job.features,
        keep=job.keep,
        logits=end == len(job),
    )


def note_computed(job: Job, segment: Segment) -> None:
    """The segment has been through the model: its job, and what its sequence holds, moved on."""
    assert job.sequence is not None
    end = segment.start + len(segment.ids)
    if not job.written:
        job.done = end
    if job.keep:
        sequence = job.sequence
        if end > len(sequence.keys):
            sequence.keys = np.concatenate([sequence.keys, segment.ids])
        sequence.filled = end
