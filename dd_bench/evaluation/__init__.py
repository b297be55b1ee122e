"""Fresh networks trained on a synthetic set, and metrics of graph classification."""
