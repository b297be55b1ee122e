"""`python -m dd_bench` is `dd-bench`."""

from dd_bench.cli import main

main()
