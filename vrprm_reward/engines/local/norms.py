"""A language model's RMS norms as torch has them: on a GPU one kernel each, from torch 2.9 on.

transformers writes such a norm as eight operations, and there are four in a layer of Qwen3-VL. On a
GPU a pass that generates a token for each row is bound by the starting of kernels
(benchmarks/results/README.md).
"""

from typing import Any

import torch

_NORMS = ("Qwen3VLTextRMSNorm", "Qwen2_5_VLRMSNorm")
"""Classes of transformers that scale by the root mean square, computed in float32, and a weight."""


def use_torch_norms(model: Any) -> None:
    """Put `torch.nn.RMSNorm` with the same weights in the place of every such norm.

    In half precision the result is rounded once where transformers rounds twice.
    """
    for name, norm in list(model.named_modules()):
        if type(norm).__name__ in _NORMS:
            weight = norm.weight
            own = torch.nn.RMSNorm(weight.shape, norm.variance_epsilon, device="meta")
            own.weight = weight
            own.train(norm.training)
            model.set_submodule(name, own)
