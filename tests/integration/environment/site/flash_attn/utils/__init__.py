"""Only `distributed` is stood in for."""
