"""Insert generated tables into a Markdown document, between pairs of markers.

    <!-- table fashion_mnist/dc-300-v1--hard--convnet_width=32 -->
    ...
    <!-- table end -->

The name after `table` selects what is inserted:

- the path of a board in leaderboards/tables, without suffix: its table of methods by IPC;
- this path followed by ` compared`: the same table, only with the IPCs at which several methods were measured;
- this path followed by ` all-metrics`: all metrics of its records;
- `cross_arch`, `continual`, `linear_probe`, `cost`, `labels`, `label_bits`, `architectures` or `bits`: all tables of
  that page;
- `bits precision` and `bits equal`: the two kinds of tables of that page; followed by a dataset, only its own;
- `ranks`: mean ranks over datasets;
- `label_bits DATASET`: the tables of that page that compare all kinds of labels, under `labels-400`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dd_bench.records.record import Record
from dd_bench.runtime.files import write_atomic

from ..core.boards import Board, compared_board
from ..core.entries import LABEL_COMPARISON
from .bits import precision_tables
from .equal_bits import equal_bits_tables
from .formatting import all_metrics_table
from .markup import MARKDOWN
from .mean_ranks import rank_tables
from .tables import pages, table_of

_NONE = "There are no entries yet."


def embed(document: Path, tables: Mapping[str, str]) -> int:
    """Insert the tables that a document names, all or none, and return their number. `tables` are by `named_tables`.

    Raises:
        ValueError: the document names no table or an unknown table, or a block has no end marker.
        OSError: the document cannot be read or written.
    """
    with document.open(newline="") as file:
        text = file.read()
    new, count = embedded(text, tables, str(document))
    if new != text:
        write_atomic(document, new.encode())
    return count


def embedded(text: str, tables: Mapping[str, str], where: str = "the document") -> tuple[str, int]:
    """Return a text with the tables inserted, and their number; see `embed`."""
    new, count = fill_blocks(text, "table", tables, where)
    if not count:
        raise ValueError(
            f"{where} has no table markers. Add two lines: <!-- table NAME --> and <!-- table end -->"
        )
    return new, count


def fill_blocks(text: str, kind: str, known: Mapping[str, str], where: str) -> tuple[str, int]:
    """Return a text with `known[NAME]` between each pair of markers `<!-- KIND NAME -->` and `<!-- KIND end -->`.

    The second value is the number of these blocks. `where` names the document in error messages.

    Raises:
        ValueError: a name is unknown, or a block has no end marker.
    """
    mark = re.compile(rf"^[ \t]*<!-- {kind} (.+?) -->[ \t]*(?:\r?\n|$)", re.MULTILINE)
    marks = list(mark.finditer(text))
    names = [mark[1] for mark in marks if mark[1] != "end"]
    if [mark[1] for mark in marks] != [word for name in names for word in (name, "end")]:
        raise ValueError(
            f"{where}: each <!-- {kind} NAME --> must be followed by exactly one <!-- {kind} end -->"
        )
    for name in names:
        if name not in known:
            near = [k for k in known if name in k][:5] or difflib.get_close_matches(name, known, 3, 0.3)
            hint = ". Names are paths in leaderboards/tables without suffix" if kind == "table" else ""
            raise ValueError(
                f"{where}: unknown {kind} {name!r}. Similar names: {', '.join(near) or 'none'}{hint}"
            )
    line = "\r\n" if "\r\n" in text else "\n"
    new, last = "", 0
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        new += text[last : begin.end()] + known[begin[1]].strip().replace("\n", line) + line
        last = end.start()
    return new + text[last:], len(names)


def named_tables(boards: Sequence[Board], entries: Sequence[Record] = ()) -> dict[str, str]:
    """Return every table by its name, as Markdown.

    `entries` are all entries, for the pages that combine several boards; by default, those of `boards`.
    """
    by_name = {board.track.path: table_of(board) for board in boards}
    by_name |= {f"{board.track.path} compared": table_of(compared_board(board)) for board in boards}
    by_name |= {
        f"{board.track.path} all-metrics": table for board in boards if (table := all_metrics_table(board))
    }
    entries = entries or [record for board in boards for record in board.records]
    combined = pages(entries) | {
        "ranks": rank_tables([board for board in boards if not board.track.compares_labels]),
        "bits precision": precision_tables(entries),
        "bits equal": equal_bits_tables(entries),
    }
    by_name |= {name: _joined(tables) for name, tables in combined.items()}
    by_name |= {name: by_name[name] or _NONE for name in ("bits precision", "bits equal", "linear_probe")}
    compared = [one for one in combined["label_bits"] if f" {LABEL_COMPARISON}" in one[0]]
    for dataset in {record.dataset for record in entries}:
        for kind in ("bits precision", "bits equal"):
            of_dataset = [one for one in combined[kind] if one[0].startswith(f"{dataset}: ")]
            by_name[f"{kind} {dataset}"] = _joined(of_dataset) or _NONE
        own = [one for one in compared if one[0].startswith(f"{dataset}, ")]
        by_name[f"label_bits {dataset}"] = _joined(own) or _NONE
    return by_name


def _joined(tables: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"**{MARKDOWN.escape(title)}**\n\n{table}" for title, table in tables)
