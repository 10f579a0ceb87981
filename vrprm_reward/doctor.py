"""Find out how a checkpoint wants to be spoken to, and whether everything it needs is in place.

Nothing but trying tells which frame a checkpoint follows. Each packaged profile is tried on
samples with known verdicts, and four signs are read: whether generated text had the form the
frame wants, how much probability the model gave to "0" and "1" together where a verdict is due,
how decided it was between them, and how often it was right.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vrprm_reward.demo import world
from vrprm_reward.engines.engine import Engine, Generation, Judgement, Prompt
from vrprm_reward.images import PixelLimits
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.scorer import VRPRMScorer
from vrprm_reward.scoring.template import check_template
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, Rollout

SAMPLES = 8
_SAMPLE_SEED = 77

GOOD_FORM, GOOD_MASS, GOOD_AGREEMENT = 0.9, 0.5, 0.8
"""What a checkpoint that follows a frame reaches at least: share of generated texts in the right
form, mean probability of both verdicts together, balanced accuracy on the samples."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    what: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class FrameEvidence:
    """How a checkpoint behaved under one profile."""

    profile: str
    """Its name or path, as it was asked for: two files may give their profiles one name."""

    scored: int
    """Rollouts that got scores, of `SAMPLES`."""

    form: float
    """Share of generated texts in the form the frame wants; 1 where nothing is generated."""

    mass: float | None
    """Mean probability of "0" and "1" together at the judged positions. None when the engine
    gives only renormalised probabilities, or nothing was judged."""

    confidence: float
    """Mean of |2p - 1| over all judged steps."""

    agreement: float
    """Balanced accuracy against the known verdicts; 0.5 is guessing."""

    reason: str | None
    """Why rollouts were left unscored, most frequent first."""

    @property
    def followed(self) -> bool:
        """Whether the checkpoint follows this frame, by all signs."""
        return (
            self.form >= GOOD_FORM
            and (self.mass is None or self.mass >= GOOD_MASS)
            and self.agreement >= GOOD_AGREEMENT
        )

    @property
    def rank(self) -> float:
        """Product of the signs; how frames are compared."""
        return self.form * (1.0 if self.mass is None else self.mass) * self.agreement


AS_GOOD = 0.05
"""What two ranks may differ by without saying anything, with so few samples."""


def as_good(other: FrameEvidence, best: FrameEvidence) -> bool:
    """Whether a frame is followed as well as the best one, as far as the samples can tell."""
    return other.followed and best.rank - other.rank <= AS_GOOD


@dataclass
class _Witness:
    """An engine that notes how much probability the verdicts got."""

    engine: Engine
    masses: list[float] = field(default_factory=list)
    renormalised: bool = True

    @property
    def identity(self) -> str:
        return self.engine.identity

    @property
    def added_tokens(self) -> frozenset[str]:
        return self.engine.added_tokens

    @property
    def deterministic(self) -> bool:
        return self.engine.deterministic

    def fixed_point_pays(self, *, rollouts: int, steps: int) -> bool:
        return self.engine.fixed_point_pays(rollouts=rollouts, steps=steps)

    async def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: str | None, share: object
    ) -> Generation:
        return await self.engine.generate(prompt, max_tokens=max_tokens, stop=stop, share=share)

    async def judge(self, prompt: Prompt, *, share: object) -> Judgement:
        judgement = await self.engine.judge(prompt, share=share)
        mass = math.exp(judgement.log_p0) + math.exp(judgement.log_p1)
        self.renormalised = self.renormalised and abs(mass - 1) < 1e-6
        self.masses.append(min(1.0, mass))
        return judgement

    def expect(self, share: object) -> None:
        self.engine.expect(share)

    def release(self, share: object) -> None:
        self.engine.release(share)

    def close(self) -> None:
        """The engine is not this object's to close."""


def samples(count: int = SAMPLES) -> list[world.Example]:
    """Problems of the demo world with known verdicts, both kinds in every one."""
    rng = random.Random(_SAMPLE_SEED)
    found: list[world.Example] = []
    while len(found) < count:
        example = world.random_example(rng)
        if set(example.labels) == {0, 1} and len(example.steps) <= 6:
            found.append(example)
    return found


def try_profile(
    engine: Engine,
    given: str,
    profile: Profile,
    examples: Sequence[world.Example],
    pixels: PixelLimits | None,
) -> FrameEvidence:
    """Score the samples under one profile and read the signs.

    Args:
        engine: the model.
        given: name or path under which the profile was asked for.
        profile: how to speak to it.
        examples: problems with known verdicts.
        pixels: replaces the profile's pixel limits; None keeps them.
    """
    if pixels is not None:
        profile = profile.model_copy(update={"pixels": pixels})
    witness = _Witness(engine)
    scorer = VRPRMScorer(lambda: witness, profile)
    rollouts = []
    for example in examples:
        response, steps = join_steps([step.text for step in example.steps])
        problem = Problem(question=example.question, images=(example.image,))
        rollouts.append(Rollout(problem=problem, response=response, steps=steps))
    scores = scorer.score(rollouts)
    scorer.close()
    scored = [(s, e) for s, e in zip(scores, examples, strict=True) if s.scored]
    if profile.think is None:
        form = len(scored) / len(scores)
    else:
        form = sum(not score.flags for score, _ in scored) / len(scores)
    pairs = [
        (p, label)
        for score, example in scored
        for p, label in zip(score.p_correct, example.labels, strict=True)
    ]
    reasons = [score.reason for score in scores if score.reason]
    known_mass = witness.masses and not witness.renormalised
    return FrameEvidence(
        profile=given,
        scored=len(scored),
        form=form,
        mass=sum(witness.masses) / len(witness.masses) if known_mass else None,
        confidence=sum(abs(2 * p - 1) for p, _ in pairs) / len(pairs) if pairs else 0.0,
        agreement=_balanced_accuracy(pairs),
        reason=max(set(reasons), key=reasons.count) if reasons else None,
    )


def _balanced_accuracy(pairs: Sequence[tuple[float, int]]) -> float:
    """Mean over both labels of the share judged right; a label that never occurs counts as 0.5."""
    shares = []
    for label in (0, 1):
        hits = [int(p >= 0.5) == y for p, y in pairs if y == label]
        shares.append(sum(hits) / len(hits) if hits else 0.5)
    return sum(shares) / 2


def try_profiles(
    engine_for: Callable[[str], Engine],
    profiles: Mapping[str, Profile],
    pixels: PixelLimits | None = None,
) -> list[FrameEvidence]:
    """Try profiles one after another, each under its own conversation template.

    Args:
        engine_for: template (Jinja source) -> an engine that uses it. Called once for each distinct
            template; the engine is closed before the next one is wanted.
        profiles: what to try, by the name or path under which it was asked for.
        pixels: replaces the profiles' pixel limits; None keeps them.

    Returns:
        What was found, the best first.
    """
    examples = samples()
    found: dict[str, FrameEvidence] = {}
    for template in dict.fromkeys(profile.conversation for profile in profiles.values()):
        engine = engine_for(template)
        for given, profile in profiles.items():
            if profile.conversation == template:
                found[given] = try_profile(engine, given, profile, examples, pixels)
        engine.close()
    # From the order in which they were given, so that equals do not change places.
    return sorted((found[given] for given in profiles), key=lambda evidence: -evidence.rank)


def check_checkpoint(
    added_tokens: frozenset[str],
    context_tokens: int,
    own_template: str | None,
    profiles: Mapping[str, Profile],
) -> list[Finding]:
    """Check what can be checked without asking the model anything.

    Args:
        added_tokens: the tokenizer's reserved strings.
        context_tokens: longest sequence the model takes.
        own_template: the checkpoint's own chat template, as a server would use it.
        profiles: those that are going to be used, as in `try_profiles`.
    """
    needed = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    absent = [token for token in needed if token not in added_tokens]
    findings = [
        Finding(
            "special tokens", not absent, f"missing: {' '.join(absent)}" if absent else "all there"
        ),
        Finding(
            "context",
            context_tokens >= 2048,
            f"{context_tokens} tokens"
            + ("" if context_tokens >= 2048 else ": long solutions will be left unscored"),
        ),
    ]
    findings.append(_check_templates(profiles))
    if own_template is None:
        detail = "the checkpoint has none; a server needs --chat-template"
        findings.append(Finding("checkpoint's template", True, detail))
    else:
        faults = check_template(own_template)
        remedy = "serve it with the output of `vrprm-reward chat-template` as --chat-template"
        detail = f"{'; '.join(faults)}: {remedy}" if faults else "in order"
        findings.append(Finding("checkpoint's template", not faults, detail))
    return findings


def _check_templates(profiles: Mapping[str, Profile]) -> Finding:
    """Every distinct template, with the names of the profiles that have it where it has faults."""
    names: dict[str, list[str]] = {}
    for given, profile in profiles.items():
        names.setdefault(profile.conversation, []).append(given)
    faults = [
        f"{', '.join(names[template])}: {'; '.join(found)}"
        for template in names
        if (found := check_template(template))
    ]
    return Finding("profiles' templates", not faults, " | ".join(faults) or "in order")


def without_long_thinking(profile: Profile, max_tokens: int) -> Profile:
    """A profile that thinks at most so long: samples are short, and many frames are tried."""
    if profile.think is None or profile.think.max_tokens <= max_tokens:
        return profile
    return profile.model_copy(
        update={"think": profile.think.model_copy(update={"max_tokens": max_tokens})}
    )
