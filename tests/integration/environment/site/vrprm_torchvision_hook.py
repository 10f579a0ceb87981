"""Lets PyPI's torchvision be imported beside a CPU build of torch.

Its compiled operators do not load there, and its Python part then fails for want of two of their
schemas. The hook declares these two right before torchvision's first import, in every process of
the environment, since a `.pth` file beside it imports this module at start-up. Nothing here is
imported otherwise, torch least of all.
"""

import importlib.abc
import importlib.machinery
import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def declare_and_execute(module):
            import torch

            for operator in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, operator):
                    torch.library.define(f"torchvision::{operator}", _SCHEMA)
            execute(module)

        spec.loader.exec_module = declare_and_execute
        return spec


sys.meta_path.insert(0, _DeclareOperators())
