"""The Hydra tree; this file makes `pkg://dd_bench.conf` importable."""
