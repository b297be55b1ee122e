"""The one train-from-scratch loop, with its recipes, protocols, augmentations and losses."""
