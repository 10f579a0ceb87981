"""Scoring through OpenAI-compatible servers (vLLM, SGLang), over HTTP."""
