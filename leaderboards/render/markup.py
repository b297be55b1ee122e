"""The two markups of a table, Markdown and LaTeX: what sets off a number, and how foreign text is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Markup:
    """How to write a cell; every field but `escape` is a `str.format` pattern with one slot."""

    escape: Callable[[str], str]
    best: str
    tied: str
    count: str
    mark: str


def escape_markdown(text: str) -> str:
    """Escapes what would end a cell, start markup or carry HTML; a line break becomes a space."""
    text = " ".join(text.split()).translate(_MARKDOWN)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # inside a word, as in lr_img, it means nothing


def escape_latex(text: str) -> str:
    """Escapes what is special to LaTeX, and writes the signs of these tables in ASCII."""
    return " ".join(text.split()).translate(_LATEX)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns a table that lines up as plain text too: `left` columns flush left, the others right."""
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
    | {c: f"{{{c}}}" for c in "[]*"}  # a line break in a table takes these for its options
    | {"–": "--", "±": r"$\pm$", "×": r"$\times$", "≈": r"$\approx$", "†": r"\dag{}", "‡": r"\ddag{}"}
)

PLAIN = Markup(lambda text: text, best="{} ★", tied="{} ≈", count=" ({})", mark=" [{}]")
MARKDOWN = Markup(escape_markdown, best="**{}**", tied="≈ {}", count=" ({})", mark=" [{}]")
LATEX = Markup(
    escape_latex,
    best=r"\textbf{{{}}}",
    tied=r"\underline{{{}}}",
    count=r" {{\scriptsize ({})}}",
    mark=r"\textsuperscript{{{}}}",
)
