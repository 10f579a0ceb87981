"""The optimizers of the demo checkpoint, and their learning rates."""

from typing import Any

import torch

from vrprm_reward.demo.muon import Float32Muon


def make_optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else.

    AdamW alone did not learn to look words up within hours; Muon (Jordan et al. 2024, "Muon: an
    optimizer for hidden layers") does within minutes.
    """
    layers = ("language_model.layers", "visual.blocks", "visual.merger", "visual.deepstack")
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = parameter.ndim == 2 and any(part in name for part in layers)
        (matrices if inside else others).append(parameter)
    slow = model.device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    make: Any = Float32Muon if slow else torch.optim.Muon
    muon: torch.optim.Optimizer = make(matrices, lr=MATRIX_RATE, weight_decay=0.01)
    adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for group in (*muon.param_groups, *adam.param_groups):
        group["initial_lr"] = group["lr"]
    return [muon, adam]


MATRIX_RATE, OTHER_RATE = 0.012, 2e-3


def learning_rate(update: int, total: int) -> float:
    """Share of the highest rate: up over 50 updates, then down to 1% in a straight line."""
    return min((update + 1) / 50, 1 - 0.99 * update / total)
