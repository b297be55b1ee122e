"""How to compute and how to store: files, cache, checkpoints, seeds, devices, processes."""
