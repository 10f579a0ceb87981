"""torch's norms in the place of those of transformers."""

import copy

import pytest
import torch

from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.norms import use_torch_norms


@pytest.fixture(params=["random_qwen3_vl", "random_qwen2_5_vl"])
def text_model(request):
    return load_checkpoint(request.getfixturevalue(request.param)).model.model.language_model


def norms_of(model):
    return {n: m for n, m in model.named_modules() if type(m).__name__.endswith("RMSNorm")}


def test_every_norm_is_torchs_with_the_weights_there_were(text_model):
    before = norms_of(text_model)
    use_torch_norms(text_model)
    after = norms_of(text_model)
    assert list(after) == list(before) != []
    assert {type(norm) for norm in after.values()} == {torch.nn.RMSNorm}
    assert all(after[name].weight is norm.weight for name, norm in before.items())


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-6)])
def test_they_say_what_those_of_transformers_say(text_model, dtype, most):
    torch.manual_seed(0)
    for norm in norms_of(text_model).values():
        torch.nn.init.normal_(norm.weight, 1.0, 0.1)
    changed = copy.deepcopy(text_model)
    use_torch_norms(changed)
    for name, norm in norms_of(text_model).items():
        own = changed.get_submodule(name).to(dtype)
        for scale in (3.0, 1e-3):  # so small that epsilon counts
            hidden = scale * torch.randn(5, norm.weight.shape[0], dtype=dtype)
            torch.testing.assert_close(own(hidden), norm.to(dtype)(hidden), rtol=most, atol=most)
