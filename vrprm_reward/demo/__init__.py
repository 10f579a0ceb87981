"""A synthetic visual world with true labels, and a small checkpoint trained on it."""
