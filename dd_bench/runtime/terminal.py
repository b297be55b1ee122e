"""Strip control characters from untrusted text before printing it."""

from __future__ import annotations


def sanitize(text: str) -> str:
    """Replace every non-printable character except newlines by U+FFFD, so that the text cannot control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
