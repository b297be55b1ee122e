"""Strip control characters from untrusted text before it is printed or written to a page."""

from __future__ import annotations


def sanitize(text: str) -> str:
    """Replace every non-printable character except newlines by U+FFFD.

    The text can then neither control the terminal nor reverse the direction of the text around it.
    """
    return "\n".join(line if line.isprintable() else _sanitize_line(line) for line in text.split("\n"))


def _sanitize_line(line: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in line)
