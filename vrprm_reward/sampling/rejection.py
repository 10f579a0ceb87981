"""Step-level rejection sampling: a policy proposes steps, a process reward lets them pass or not.

From an accepted prefix the policy proposes some next steps. Each is scored in the context of the
prefix; those under the threshold are rejected and, if none is left, others are proposed, so many
times at most. With a beam several prefixes are followed at once; with lookahead a step is judged
by what the policy makes of it in the steps after it (as in arXiv 2408.03314, section 5.1, with
the least probability from the step on in place of the last one).
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from vrprm_reward.blank import is_blank
from vrprm_reward.errors import InputError
from vrprm_reward.jobs.keys import digest
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.sampling.policy import SEPARATOR, Continuation, Policy
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Usage

T = TypeVar("T")

Pick = Literal["best", "first"]


@dataclass(frozen=True)
class SearchSettings:
    """How a trajectory is built. Raises `InputError` for settings that make no sense."""

    proposals: int = 4
    """Steps that are proposed at one time."""

    threshold: float = 0.5
    """A step is accepted when its probability in [0, 1] is at least this."""

    tries: int = 3
    """How often steps are proposed for one place before the trajectory is given up."""

    pick: Pick = "best"
    """Of several accepted steps, the most probable or the first one goes on. `first` keeps to what
    the policy would have written, were it never wrong."""

    beam: int = 1
    """Prefixes that are followed at once, and most trajectories that come out of one search."""

    lookahead: int = 0
    """Steps that are written behind a proposal before it is judged."""

    max_steps: int = 32
    """A trajectory that is longer is given up."""

    def __post_init__(self) -> None:
        for name in ("proposals", "tries", "beam", "max_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} is less than 1")
        if self.lookahead < 0:
            raise InputError(f"lookahead = {self.lookahead} is negative")
        if not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"threshold = {self.threshold} is not in [0, 1]")


@dataclass(frozen=True)
class Trajectory:
    """Steps that were accepted one after another."""

    steps: tuple[str, ...] = ()
    p_correct: tuple[float, ...] = ()
    """Of each step when it was accepted."""

    ended: str | None = None
    """`finished`; `no_step_accepted` or `too_many_steps` where it was given up; None: not yet."""

    @property
    def response(self) -> str:
        """The steps as one text."""
        return SEPARATOR.join(self.steps)

    @property
    def mean(self) -> float:
        """Mean step probability; 0 before the first step."""
        return sum(self.p_correct) / len(self.p_correct) if self.p_correct else 0.0


@dataclass(frozen=True)
class Judged:
    """A proposal with what the process reward said of it."""

    text: str
    finished: bool
    p: float
    """Probability of the step itself."""

    value: float
    """What decides: the same, or with lookahead the least from the step on."""


@dataclass(frozen=True)
class Choice:
    """What was proposed at one place of a trajectory."""

    prefix: Trajectory
    accepted: tuple[Judged, ...]
    """Those that passed; the one that goes on (with a beam, the first to go on) stands first."""

    rejected: tuple[Judged, ...]


@dataclass
class Spent:
    """What a search cost."""

    policy_tokens: int = 0
    proposals: int = 0
    unscored: int = 0
    """Proposals that the process reward could not score; they are neither accepted nor rejected."""

    unusable: int = 0
    """Proposals that were too long, or blank where no response can end."""

    reward: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Found:
    """What a search for one problem came to."""

    trajectories: tuple[Trajectory, ...]
    """All that ended, finished ones first."""

    choices: tuple[Choice, ...]
    spent: Spent

    @property
    def accepted(self) -> tuple[Trajectory, ...]:
        """Those that were finished."""
        return tuple(t for t in self.trajectories if t.ended == "finished")


async def search(
    problem: Problem,
    policy: Policy,
    reward: ProcessReward,
    settings: SearchSettings = SearchSettings(),
    *,
    seed: int = 0,
) -> Found:
    """Build trajectories for one problem.

    Args:
        problem: neither policy nor reward is shown its reference answer.
        policy: proposes.
        reward: judges.
        settings: how.
        seed: with a deterministic policy and reward the result depends on nothing else.

    Returns:
        At most `settings.beam` finished trajectories, and everything that was judged on the way.
    """
    problem = problem.model_copy(update={"reference_answer": None})
    run = _Search(problem, policy, reward, settings, seed)
    alive, ended = [Trajectory()], list[Trajectory]()
    for _ in range(settings.max_steps):
        if not alive:
            break
        grown = await all_of(run.grow(trajectory) for trajectory in alive)
        pool = [new for several in grown for new in several]
        ended += [new for new in pool if new.ended]
        room = settings.beam - sum(t.ended == "finished" for t in ended)
        alive = _best([new for new in pool if not new.ended], room)
    ended += [replace(trajectory, ended="too_many_steps") for trajectory in alive]
    finished = _best([t for t in ended if t.ended == "finished"], settings.beam)
    given_up = [t for t in ended if t.ended != "finished"]
    return Found((*finished, *given_up), tuple(run.choices), run.spent)


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; when one fails, the others are ended before that is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _best(trajectories: Sequence[Trajectory], count: int) -> list[Trajectory]:
    return sorted(trajectories, key=lambda t: -t.mean)[: max(0, count)]


@dataclass
class _Search:
    problem: Problem
    policy: Policy
    reward: ProcessReward
    settings: SearchSettings
    seed: int
    choices: list[Choice] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    async def grow(self, prefix: Trajectory) -> list[Trajectory]:
        """The prefix with one more step, in up to `beam` ways; or the prefix, ended or given up.

        A proposal to end where it is has no step to be judged. It is followed when at least half
        of the proposals are such, or no proposed step is accepted; with a beam it is one more way.
        """
        accepted: list[Judged] = []
        rejected: list[Judged] = []
        seen: set[str] = set()
        ended: list[Trajectory] = []
        for attempt in range(self.settings.tries):
            proposals = await self._propose(prefix.steps, self.settings.proposals, attempt)
            ends = sum(bool(prefix.steps) and _is_end(p) for p in proposals)
            new = [p for p in _distinct(proposals) if p.text not in seen or not p.text]
            if ends:
                ended = [replace(prefix, ended="finished")]
                new = [p for p in new if not _is_end(p)]
                if self.settings.beam == 1 and 2 * ends >= len(proposals):
                    return ended
            seen.update(p.text for p in new)
            for judged in await self._judge(prefix.steps, new):
                passed = judged.value >= self.settings.threshold
                (accepted if passed else rejected).append(judged)
            if accepted or ended:
                break
        if self.settings.pick == "best":
            accepted.sort(key=lambda judged: -judged.value)
        if accepted or rejected:
            self.choices.append(Choice(prefix, tuple(accepted), tuple(rejected)))
        if not accepted:
            return ended or [replace(prefix, ended="no_step_accepted")]
        grown = [_with_step(prefix, judged) for judged in accepted[: self.settings.beam]]
        return grown if self.settings.beam == 1 else [*ended, *grown]

    async def _propose(
        self, steps: tuple[str, ...], count: int, attempt: int
    ) -> list[Continuation]:
        """Proposals, deterministic in the seed and the place."""
        seed = int.from_bytes(digest([self.seed, list(steps), attempt, count])[:4]) >> 1
        proposals = await self.policy.propose(self.problem, steps, count, seed=seed)
        self.spent.policy_tokens += sum(p.tokens for p in proposals)
        self.spent.proposals += len(proposals)
        return list(proposals)

    async def _judge(
        self, steps: tuple[str, ...], proposals: Sequence[Continuation]
    ) -> list[Judged]:
        usable = [p for p in proposals if not is_blank(p.text)]
        self.spent.unusable += len(proposals) - len(usable)
        followed = await all_of(self._look_ahead(steps, p) for p in usable)
        scores = await self.reward.ascore([self._rollout(texts) for texts in followed])
        found = []
        for proposal, score in zip(usable, scores, strict=True):
            self.spent.reward += score.usage
            p = _probabilities_from(score, len(steps))
            if p is None:
                self.spent.unscored += 1
            else:
                found.append(Judged(proposal.text, proposal.finished, p[0], min(p)))
        return found

    async def _look_ahead(self, steps: tuple[str, ...], proposal: Continuation) -> tuple[str, ...]:
        """The steps with the proposal and up to `lookahead` more behind it."""
        steps = (*steps, proposal.text)
        finished = proposal.finished
        for depth in range(self.settings.lookahead):
            if finished:
                break
            (more,) = await self._propose(steps, 1, -1 - depth)
            if is_blank(more.text):
                break
            steps, finished = (*steps, more.text), more.finished
        return steps

    def _rollout(self, texts: tuple[str, ...]) -> Rollout:
        response, steps = join_steps(texts)
        return Rollout(problem=self.problem, response=response, steps=steps)


def _is_end(proposal: Continuation) -> bool:
    """Whether it says that the response ends where it is."""
    return proposal.finished and is_blank(proposal.text)


def _distinct(proposals: Sequence[Continuation]) -> list[Continuation]:
    return list({(p.text, p.finished): p for p in proposals}.values())


def _with_step(prefix: Trajectory, judged: Judged) -> Trajectory:
    return Trajectory(
        steps=(*prefix.steps, judged.text),
        p_correct=(*prefix.p_correct, judged.p),
        ended="finished" if judged.finished else None,
    )


def _probabilities_from(score: ProcessScore, index: int) -> tuple[float, ...] | None:
    return score.p_correct[index:] if score.scored else None
