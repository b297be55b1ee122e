"""NCFM: the sampler of frequencies."""
