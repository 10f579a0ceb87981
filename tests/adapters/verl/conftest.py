"""verl's pins exclude ours, so it is not installed here; what needs it is in tests/integration."""

import importlib.util
import sys
import types
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "adapters" / "vrprm_verl"

if importlib.util.find_spec("verl") is None:
    # The package without its `__init__`, which imports verl.
    package = types.ModuleType("vrprm_verl")
    package.__path__ = [str(FOLDER)]
    sys.modules["vrprm_verl"] = package
