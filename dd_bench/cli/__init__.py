"""The `dd-bench` command."""
