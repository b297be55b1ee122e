"""What a stranger wrote, on a terminal: text, and no order to it."""

from __future__ import annotations


def sanitize(text: str) -> str:
    """Returns text without characters that a terminal would obey; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
