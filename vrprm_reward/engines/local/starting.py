"""Which of the waiting jobs may begin, and behind which prefix that is computed already."""

from collections import Counter

from vrprm_reward.engines.local.kv_pool import KVPool
from vrprm_reward.engines.local.sequences import (
    WORTH_SHARING,
    Job,
    Sequence,
    common_prefix,
    longer_prefix,
)


def start_jobs(waiting: list[Job], running: list[Job], pool: KVPool, *, pass_tokens: int) -> None:
    """Give sequences to the jobs that can have one; they are appended to `running`.

    Args:
        waiting: jobs in the order in which they are to be served.
        running: jobs that have begun.
        pool: where the sequences come from.
        pass_tokens: bound on the tokens of one forward pass.

    Raises:
        torch.OutOfMemoryError: no memory for keys and values; jobs before that one have begun.
    """
    same_share = Counter(job.share for job in waiting)
    full = False
    for job in waiting:
        newcomer = pool.get(job.share) is None
        siblings = same_share[job.share] - 1
        if (newcomer and full) or not _start(job, running, pool, siblings, pass_tokens):
            full = full or (newcomer and not pool.has_room(job.need))
        else:
            running.append(job)


def _start(job: Job, running: list[Job], pool: KVPool, siblings: int, pass_tokens: int) -> bool:
    """Give a job its sequence, if that is free and no better prefix is on its way."""
    sequence = pool.get(job.share)
    if sequence is not None and sequence.writer is not None:
        return False
    if sequence is not None and _can_branch(job, sequence, siblings, pass_tokens):
        job.sequence, job.keep = sequence, False
        job.done = min(common_prefix(sequence.known, job.prompt.keys), len(job) - 1)
        sequence.readers += 1
        pool.touch(sequence)
        return True
    if sequence is not None and sequence.readers:
        return False
    if _better_prefix_is_coming(job, running, pool):
        return False
    sequence = pool.admit(job)
    if sequence is None:
        return False
    pool.fill_from_others(sequence, job)
    job.sequence, job.keep, job.done = sequence, True, sequence.filled
    sequence.writer = job
    return True


def _can_branch(job: Job, sequence: Sequence, siblings: int, pass_tokens: int) -> bool:
    """Whether a judgement may read the sequence without changing it, beside its siblings."""
    if job.generates or not (siblings or sequence.readers):
        return False
    shared = common_prefix(sequence.known, job.prompt.keys)
    return shared >= WORTH_SHARING and len(job) - shared <= pass_tokens


def _better_prefix_is_coming(job: Job, running: list[Job], pool: KVPool) -> bool:
    """Whether another job is computing a prefix of this one that is worth waiting for.

    Once one is found, nothing else is looked at until it is there: this is asked for every waiting
    job before every pass.
    """
    if job.behind is not None and _is_computing(*job.behind):
        return True
    job.behind = None
    writers = [other for other in running if other.keep and not other.written]
    if not writers:
        return False
    keys = job.prompt.keys
    have = pool.longest_known(keys, job.share)
    for writer in writers:
        shared = longer_prefix(writer.prompt.keys, keys, have)
        if shared > have:
            job.behind = writer, shared
            return True
    return False


def _is_computing(writer: Job, tokens: int) -> bool:
    sequence = writer.sequence
    return sequence is not None and sequence.writer is writer and writer.done < tokens
