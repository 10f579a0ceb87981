"""VRPRM process rewards in verl: a reward manager, agent loops and advantage estimators.

Importing this registers them in the process. verl does that by itself in each of its processes:
through the entry point `verl.plugins` (0.9), or `VERL_USE_EXTERNAL_MODULES=vrprm_verl` (0.8).
"""

# First, and as a whole: verl imports its plugins while it is being imported, so a worker that
# unpickles something of ours before it knows verl would else meet us half imported.
import verl

from vrprm_verl.plugin import load

__all__ = ["load"]

load(verl.__version__)
