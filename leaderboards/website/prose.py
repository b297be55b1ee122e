"""Docstrings as HTML: paragraphs, lists, indented code and inline code. Everything else is escaped."""

from __future__ import annotations

import re
from html import escape
from textwrap import dedent

from markupsafe import Markup


def prose(text: str) -> Markup:
    """Return a docstring as HTML. Blocks are separated by empty lines; lines of a list start with `- ` or `1. `."""
    return Markup("".join(_block(block) for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()))


def _block(block: str) -> str:
    lines = block.splitlines()
    items = [i for i, line in enumerate(lines) if re.match(r"\s*(-|[0-9]+\.) ", line)]
    if items and items[0] == 0:
        bounds = zip(items, [*items[1:], len(lines)], strict=True)
        texts = (re.sub(r"^\s*(-|[0-9]+\.) ", "", " ".join(lines[a:b])) for a, b in bounds)
        tag = "ul" if lines[0].lstrip().startswith("-") else "ol"
        return f"<{tag}>{''.join(f'<li>{_inline(text)}</li>' for text in texts)}</{tag}>"
    if all(line.startswith("    ") for line in lines):
        return f"<pre><code>{escape(dedent(block))}</code></pre>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    return re.sub("`+([^`]+)`+", r"<code>\1</code>", escape(re.sub(r"\s+", " ", text)))
