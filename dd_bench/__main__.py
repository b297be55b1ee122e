"""`python -m dd_bench` runs the command `dd-bench`."""

from dd_bench.cli.main import main

if __name__ == "__main__":  # worker processes import this module again
    main()
