"""Files, cache, checkpoints, random seeds, devices, and processes."""
