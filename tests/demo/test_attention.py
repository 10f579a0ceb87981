import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vrprm_reward.demo.attention import NAME


def test_attention_is_computed_in_float32_under_an_autocast():
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(1, 2, 9, 16, generator=generator).bfloat16().requires_grad_() for _ in range(3)
    ]
    module = torch.nn.Module()
    module.is_causal = True
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = ALL_ATTENTION_FUNCTIONS[NAME](module, *states, None)
    exact = scaled_dot_product_attention(*(s.detach().float() for s in states), is_causal=True)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.transpose(1, 2).bfloat16())
    found.sum().backward()
    assert all(state.grad is not None for state in states)
