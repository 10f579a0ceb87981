"""The HTTP reward server: scores for clients, and for OpenRLHF's remote reward model."""
