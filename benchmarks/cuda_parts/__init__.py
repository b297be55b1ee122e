"""The parts of `benchmarks/cuda_check.py`, one module each.

`rows(card)` of a module measures, and yields one row of a table at a time. A row is a flat dictionary from the title of
a column to a number or a short text. `table` is the title of its table; `data` is kept in the JSON file only.
"""
