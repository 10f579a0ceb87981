"""Process rewards in TRL."""
