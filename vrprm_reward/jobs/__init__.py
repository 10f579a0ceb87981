"""Offline jobs: rows of a file in, rows of a file out."""
