"""Groups of commands, a module each."""
