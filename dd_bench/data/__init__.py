"""Real sets: splits, preprocessing and labels, and one module a dataset family that returns a `RealSet`."""
