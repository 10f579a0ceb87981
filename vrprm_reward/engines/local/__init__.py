"""The in-process engine on torch and transformers."""
