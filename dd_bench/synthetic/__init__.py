"""Synthetic sets: what a method returns, what is stored on disk, and what networks train on."""
