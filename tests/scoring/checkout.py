"""A made-up checkout: files built like the VRPRM project's, in wording of our own."""

from pathlib import Path

from vrprm_reward.scoring.official.registry import Constant, fingerprint

TEXTS = {
    "global_think": 'Look, then think.\n\n- Write \\boxed or "quotes" between <think> tags.',
    "global_think_reference": "Look at the answer too, then think.",
    "step_score": "One step, after notes.\n- 1 or 0.",
    "step_score_no_think": "One step, no notes.",
    "single_pass": 'All steps at once, as {"Score": [...]}.',
    "single_pass_reference": 'All steps and the answer, as {"Score": [...]}.',
    "single_pass_request": 'Now the JSON: {"Score": [one number per step]}.',
    "step_request": "Does it hold? Say 1 or 0.",
    "step_turn": (
        "[Previous Step Judgments]\n{previous_judgments}\n[Current Step]\n{current_step}\n"
        "Does it hold? Say 1 or 0."
    ),
    "multi_turn_think": "First think, then one turn per step.",
    "multi_turn_no_think": "One turn per step, at once.",
    "score_json_short": "Start with [Preliminary thinking]; end lines in \\boxed{0}.",
    "score_json_long": "Think, then analyse.\n[Step Analysis]\nStep 0: fine. \\boxed{1}",
    "warm_up": "Warm up in one block.",
    "answer_task": "Think first.\n\n<answer>\nStep 0: 1\n...\n</answer>\n\nPolicy: be strict.",
    "answer_format_v1": "{{ content | trim }}\n\nFormat:\n<think>\n...\n</think>\n",
    "answer_format_v2": "{{ content | trim }}\n\nFormat two:\n<think>\n</think>\nFirstError: 1\n",
}

REGISTRY = tuple(
    Constant(name, len(text), fingerprint(text), f"made-up {name}") for name, text in TEXTS.items()
)

_EVALUATE = '''
"""A docstring."""
import textwrap
raise SystemExit("this file must never run")

GLOBAL_THINK = """{global_think}"""

WITH_ANSWER = ("Look at the answer too, "
               "then think.")

SCORE = "One step, after notes.\\n" + "- 1 or 0."

class Prompts:
    SHORT = textwrap.dedent("""
        One step, no notes.
    """).strip()

def build(question, steps):
    numbered = steps
    return (
        f"[Question]\\n{{question}}\\n"
        f"[Current Step]\\n{{numbered[0]}}\\n"
        "Does it hold? Say 1 or 0."
    )
'''

_SINGLE_PASS = """
ONE = {single_pass!r}
TWO = {single_pass_reference!r}
def user(steps):
    return (
        f"[Number of Steps]\\n{{len(steps)}}\\n"
        'Now the JSON: {{"Score": [one number per step]}}.'
    )
"""

_BUILDER = '''
SYSTEM = {multi_turn_think!r}
BARE = {multi_turn_no_think!r}
TURN = """{step_turn}"""
'''

_RL = """
def build_prompt(row):
    return (
        "[Question]\\n"
        f"{{row['question']}}\\n\\n"
        "[Candidate Solution Steps]\\n"
        f"{{row['steps']}}\\n\\n"
        "[Task]\\n"
        "Think first.\\n\\n"
        "<answer>\\n"
        "Step 0: 1\\n"
        "...\\n"
        "</answer>\\n\\n"
        "Policy: be strict."
    )
"""


def write_checkout(root: Path) -> Path:
    """Write the checkout, every text of `TEXTS` somewhere in it; returns its folder."""
    escaped = {name: text.replace("\\", "\\\\") for name, text in TEXTS.items()}
    files = {
        "bench/evaluate.py": _EVALUATE.format(**escaped),
        "bench/single_pass.py": _SINGLE_PASS.format(**TEXTS),
        "bench/score.py": f"SFT = {TEXTS['score_json_short']!r}\nWARM = {TEXTS['warm_up']!r}\n",
        "bench/again.py": f"X = {TEXTS['global_think']!r}\n",
        "data/builder.py": _BUILDER.format(**escaped),
        "data/common.py": f'SFT = """{escaped["score_json_long"]}\n"""\n',
        "rl/prepare.py": _RL.format(),
        "rl/v1.jinja": TEXTS["answer_format_v1"],
        "rl/v2.jinja": TEXTS["answer_format_v2"],
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root
