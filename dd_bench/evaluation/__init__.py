"""Training of fresh networks on a synthetic set, and metrics of graph classification."""
