"""Markdown and LaTeX: how tables mark a number, and how untrusted text is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dd_bench.runtime.terminal import sanitize


@dataclass(frozen=True)
class Markup:
    """Formats for the parts of a cell. Every field except `escape` is a `str.format` pattern with one slot."""

    escape: Callable[[str], str]
    best: str
    tied: str
    count: str
    mark: str
    settings: str  # after the label of a row; empty where they are only in the notes below the table


def escape_markdown(text: str) -> str:
    """Escape characters that end a cell, start markup or start HTML; a line break becomes a space."""
    text = _one_line(text).translate(_MARKDOWN)
    return re.sub(
        r"(?<![^\W_])_|_(?![^\W_])", r"\_", text
    )  # an underscore inside a word (lr_img) needs no escape


def escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX, and replace the symbols of these tables by ASCII commands."""
    return _one_line(text).translate(_LATEX)


def _one_line(text: str) -> str:
    return sanitize(" ".join(text.split()))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table with padded cells. The first `left` columns are left-aligned, the others right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def padded(line: list[str]) -> str:
        cells = (
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([padded(lines[0]), padded(rule), *(padded(line) for line in lines[1:])])


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*|[]~"} | {"&": "&amp;", "<": "&lt;"})
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
    | {c: f"{{{c}}}" for c in "[]*"}  # after a line break, LaTeX would read these as its options
    | {
        "–": "--",
        "±": r"$\pm$",
        "×": r"$\times$",
        "≈": r"$\approx$",
        "…": r"\dots{}",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
        "§": r"\S{}",
    }
)

PLAIN = Markup(sanitize, best="{} ★", tied="{} ≈", count=" ({})", mark=" [{}]", settings=" ({})")
MARKDOWN = Markup(escape_markdown, best="**{}**", tied="≈ {}", count=" ({})", mark=" [{}]", settings=" ({})")
LATEX = Markup(
    escape_latex,
    best=r"\textbf{{{}}}",
    tied=r"\underline{{{}}}",
    count=r" {{\scriptsize ({})}}",
    mark=r"\textsuperscript{{{}}}",
    settings="",  # a column of a paper has no place for them
)
