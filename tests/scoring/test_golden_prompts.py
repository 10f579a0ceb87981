"""The packaged profiles' prompts, byte for byte: checkpoints are trained on them.

After a change of a packaged profile's own wording, write them anew:
`python -m tests.scoring.test_golden_prompts`.
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from vrprm_reward import load_profile
from vrprm_reward.engines.engine import Prompt
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile, builtin_profiles
from vrprm_reward.scoring.render import Case

GOLDEN = Path(__file__).parent / "golden_prompts.json"
IMAGES = final_pixels([Image.new("RGB", (64, 64))] * 2, PixelLimits())
CASES = {
    "plain": Case("How many\nred circles?", ("I see 2.", " Step 1: so 2.\n", "end"), IMAGES),
    "placeholder": Case(
        "<image>\nIn <image1>, \\(x\\)?", ("a\n\nb", "Step 2: c", "d"), IMAGES, "7"
    ),
}
NOTES = Thought(
    "Two shapes.\nStep 1 holds.", prefixes=("p0 \\boxed{", "p1 \\boxed{", "p2 \\boxed{")
)


def as_text(prompt: Prompt) -> list[object]:
    turns = [
        [m.role, ["<IMAGE>" if isinstance(part, FinalImage) else part for part in m.parts]]
        for m in prompt.messages
    ]
    return [prompt.form, turns]


def prompts_of(profile: Profile) -> dict[str, object]:
    found = {}
    for name, case in CASES.items():
        for shown in (False, True):
            chosen = profile.model_copy(update={"show_reference": shown})
            key = f"{name}, reference {'shown' if shown else 'hidden'}"
            judge = FRAMES[chosen.frame].judge
            if chosen.think is not None:
                found[f"{key}: think"] = as_text(think_prompt(chosen, case))
            for verdicts in ([], [1], [1, 0]):
                found[f"{key}: {verdicts}"] = as_text(judge(chosen, case, NOTES, verdicts))
    return found


@pytest.mark.parametrize("name", builtin_profiles())
def test_the_prompts_of_packaged_profiles_never_change_unnoticed(name):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(prompts_of(load_profile(name)))) == golden[name]


if __name__ == "__main__":
    everything = {name: prompts_of(load_profile(name)) for name in builtin_profiles()}
    text = json.dumps(everything, ensure_ascii=False, indent=1)
    GOLDEN.write_text(text + "\n", encoding="utf-8")
