"""Tables in a document of one's own: what stands between two marks is kept as the entries have it.

    <!-- table fashion_mnist--dc-300-v1--last--hard--accuracy--convnet_width=32 -->
    ...
    <!-- table end -->

The name is a board's, as its files have it, for methods by IPC; `NAME all-metrics` for all metrics of its
records; or `cross_arch`, `continual`, `cost`, `labels` or `architectures` for all tables of that page.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from dd_bench.runtime.files import write_atomic

from ..core.boards import Board
from .formatting import all_metrics_table
from .markup import MARKDOWN
from .tables import pages, table_of

_MARK = re.compile(r"^[ \t]*<!-- table (.+?) -->[ \t]*(?:\r?\n|$)", re.MULTILINE)


def embed(document: Path, made: Sequence[Board]) -> int:
    """Writes the tables that a document asks for into it, and returns how many; all or none.

    Raises:
        ValueError: it asks for none, or for one that there is not, or a block has no end.
        OSError: it could not be read or written.
    """
    with document.open(newline="") as file:
        text = file.read()
    new, count = embedded(text, made, str(document))
    if new != text:
        write_atomic(document, new.encode())
    return count


def embedded(text: str, made: Sequence[Board], where: str = "the document") -> tuple[str, int]:
    """Returns a text with its tables, and how many these are; see `embed`."""
    marks = list(_MARK.finditer(text))
    names = [mark[1] for mark in marks if mark[1] != "end"]
    if [mark[1] for mark in marks] != [word for name in names for word in (name, "end")]:
        raise ValueError(
            f"{where}: each <!-- table NAME --> wants an <!-- table end --> after it, and it alone"
        )
    if not names:
        raise ValueError(
            f"{where} asks for no table. Put in, a line each: <!-- table NAME --> and <!-- table end -->"
        )
    known = _tables(made)
    for name in names:
        if name not in known:
            near = [k for k in known if name in k][:5] or difflib.get_close_matches(name, known, 3, 0.3)
            raise ValueError(
                f"{where}: there is no table {name!r}. Near to it: {', '.join(near) or 'none'}. Names are those of the "
                "files in leaderboards/tables"
            )
    line = "\r\n" if "\r\n" in text else "\n"
    new, last = "", 0
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        new += text[last : begin.end()] + known[begin[1]].strip().replace("\n", line) + line
        last = end.start()
    return new + text[last:], len(names)


def _tables(made: Sequence[Board]) -> dict[str, str]:
    """Returns every table by its name, as Markdown."""
    found = {board.track.path: table_of(board) for board in made}
    found |= {
        f"{board.track.path} all-metrics": table for board in made if (table := all_metrics_table(board))
    }
    for name, of in pages([record for board in made for record in board.records]).items():
        found[name] = "\n\n".join(f"**{MARKDOWN.escape(title)}**\n\n{table}" for title, table in of)
    return found
