"""For --train.agent_func_path: OpenRLHF loads this file by its path."""

from vrprm_openrlhf.executor import AgentExecutor

__all__ = ["AgentExecutor"]
