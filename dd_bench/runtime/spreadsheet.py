"""Write untrusted text to CSV files so that spreadsheet programs do not run it as a formula."""

from __future__ import annotations

from typing import Any

from dd_bench.runtime.terminal import sanitize

FORMULA_START = tuple("=+-@\t\r＝＋－＠")
"""Characters with which a cell is run as a formula, or ends the cell in some programs (OWASP, CSV injection)."""


def csv_cell(value: Any) -> Any:
    """Return a value for a CSV cell. Text that would be a formula gets a leading apostrophe, which shows it as text.

    Numbers and lists of numbers separated by spaces are not changed, also if they are negative. Characters that cannot
    be printed, except line breaks, become U+FFFD.
    """
    if not isinstance(value, str):
        return value
    starts_formula = value.startswith(FORMULA_START) or value.lstrip().startswith(FORMULA_START)
    return sanitize(f"'{value}" if starts_formula and not _is_numbers(value) else value)


def _is_numbers(text: str) -> bool:
    """Return whether a text is one or several numbers, separated by spaces."""
    try:
        return bool([float(word) for word in text.split(" ")])
    except ValueError:
        return False
