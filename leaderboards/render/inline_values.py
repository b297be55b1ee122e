"""Fill the numbers in the text of a page: `<!-- value LINE -->81.8<!-- end -->`, see `core/quantities`."""

from __future__ import annotations

import re

from ..core.quantities import Sources

SPAN = re.compile(r"<!-- value (?P<line>.+?) -->(?P<text>.*?)<!-- end -->", re.DOTALL)


def fill_values(text: str, sources: Sources, where: str) -> str:
    """Return a text in which each span has the current number of its line. `where` names the text in errors.

    Raises:
        ValueError: a line cannot be read, no entry matches it, or a span has no end.
    """
    if text.count("<!-- value ") != len(SPAN.findall(text)):
        raise ValueError(f"{where}: each <!-- value LINE --> must be followed by <!-- end -->")

    def current(match: re.Match[str]) -> str:
        line = " ".join(match["line"].split())
        try:
            return f"<!-- value {match['line']} -->{sources.read(line).text}<!-- end -->"
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    return SPAN.sub(current, text)
