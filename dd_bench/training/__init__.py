"""The training loop, and its recipes, protocols, augmentations and losses."""
