"""Muon in float32 does what torch's does in bfloat16."""

import copy

import pytest
import torch

from vrprm_reward.demo.muon import Float32Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonal(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ found @ right.T
    assert found.shape == matrix.shape
    assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.3)).all()
    assert torch.allclose(inside, inside.diagonal().diag(), atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 16), (24, 10), (10, 24)])
def test_steps_are_those_of_torchs_muon(shape):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = copy.deepcopy(ours)
    before = ours.detach().clone()
    one = Float32Muon([ours], lr=0.1, weight_decay=0.01)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01)
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    moved = (theirs - before).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_what_has_no_gradient_stays_and_a_closure_is_refused():
    matrix = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = Float32Muon([matrix], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(matrix, torch.ones(3, 3))
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
