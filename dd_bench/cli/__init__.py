"""The `dd-bench` command."""

SWEEP = "DD_BENCH_SWEEP"
"""Environment variable with the path of the running sweep's file."""
