"""Real datasets: splits, preprocessing and labels, and one module per dataset family that returns a `RealSet`."""
