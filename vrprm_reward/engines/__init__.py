"""Models that can be asked: in this process, or behind a server."""
