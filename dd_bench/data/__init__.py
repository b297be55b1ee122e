"""One real dataset (family) a module; each a function that returns a `RealSet`."""
