"""Answers chosen and built with step scores."""
