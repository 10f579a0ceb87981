"""Process rewards in OpenRLHF: scalar or dense, without a fork.

`install` and `runtime_env_hook` are what Ray is given (see docs/openrlhf.md). They run at the start
of every worker process, so nothing but the standard library is imported here.
"""

from vrprm_openrlhf.hook import install, installed, runtime_env_hook

__all__ = ["install", "installed", "runtime_env_hook"]
