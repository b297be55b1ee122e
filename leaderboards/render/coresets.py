"""Distilled sets and selections of real images at equal IPC: one table for a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dd_bench.records.record import Record

from ..core.differences import difference
from ..core.entries import ACCURACY, has_stored_precision
from ..core.hyperparameters import CHOSEN, MARKS, origin
from ..core.method_info import load_links, selects_real
from ..core.selectors import by_budget, config_value
from .bits import points
from .formatting import networks, number
from .markup import MARKDOWN, markdown_table

PROTOCOL, MODEL = "dc-300", "convnet(width=32)"
IPCS = (1, 10, 50)
_PICKED = ("el2n", "grand", "forgetting", "aum", "least_confidence", "margin", "entropy", "d2", "cad_prune")
SELECTIONS: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("random", "", ()),
    ("kmeans", "teacher.epochs", (6,)),  # of the feature network
    ("kmeans", "teacher.epochs", (30,)),
    *((method, "", ()) for method in ("herding", "kcenter")),
    ("kmeans_untrained", "features", ("pixels", "random")),
    *((method, "", ()) for method in ("easiest", "moderate")),
    ("ccs", "beta", (0.0, 0.3, 0.6, 0.9)),
    *((method, "pick", ("easy", "medium", "hard")) for method in _PICKED),
)
"""A method, and the hyper-parameter whose values share the cells of a row."""
_USUAL = "5"
"""Number of networks of a cell without n."""
_MARK = MARKDOWN.escape(f"[{MARKS['test']}]")


def coreset_table(entries: Sequence[Record], dataset: str) -> str:
    """Return accuracies in percent under `dc-300` by method and IPC as Markdown; '' without entries.

    Of several entries with the same values, the one with the largest budget is shown. The best distilled set and the
    best real images at each IPC are bold, without those with hyper-parameters that were chosen on test data. The last
    row is the difference of the two.
    """
    found = [
        r
        for r in entries
        if (r.dataset, r.protocol.name, r.model, r.status) == (dataset, PROTOCOL, MODEL, "done")
        and (r.evaluator.partition("(")[0], r.label_mode) == (ACCURACY, "hard")
        and r.ipc in IPCS
        and not has_stored_precision(r)
    ]
    order = list(load_links())
    names = {r.method for r in found if not selects_real(r.method)}
    methods = sorted(names, key=lambda m: (order.index(m) if m in order else len(order), m))
    distilled = _rows(found, [(method, "", ()) for method in methods])
    real = _rows(found, SELECTIONS)
    if not real:
        return ""
    best = [[_best(rows, i) for i in range(len(IPCS))] for rows in (distilled, real)]
    bold = {r.key for row in best for r in row if r}
    body = [["*Distilled sets*", "", "", ""]] * bool(distilled)
    body += [_texts(name, cells, bold) for name, cells in distilled.items()]
    body += [["*Real images*", "", "", ""], *(_texts(name, cells, bold) for name, cells in real.items())]
    gaps = [
        MARKDOWN.escape(points(difference(a, b), a)) if a and b else "" for a, b in zip(*best, strict=True)
    ]
    body += [["*Difference of the two in bold*", *gaps]] if any(gaps) else []
    lines = [markdown_table(["Method", *(f"IPC {ipc}" for ipc in IPCS)], body)]
    lines.append(f"n={_USUAL} networks of one set, unless a cell has another n.")
    shown = [r for rows in (distilled, real) for cells in rows.values() for cell in cells for r in cell if r]
    if any(map(_is_test, shown)):
        lines[-1] += f" {_MARK}: {CHOSEN['test']}."
    return "\n\n".join(lines)


_Cells = list[list[Record | None]]
"""For each IPC, one entry for each value of the hyper-parameter of a row."""


def _rows(
    records: Sequence[Record], wanted: Sequence[tuple[str, str, tuple[object, ...]]]
) -> Mapping[str, _Cells]:
    """Return the cells of the rows with an entry, by the text of the first column."""
    rows = {}
    for method, key, values in wanted:
        cells = [[_entry(records, method, ipc, key, value) for value in values or (None,)] for ipc in IPCS]
        if any(r for cell in cells for r in cell):
            rows[f"`{method}`" + f", {key} " * bool(key) + "<br>".join(map(str, values))] = cells
    return rows


def _entry(records: Sequence[Record], method: str, ipc: int, key: str, value: object) -> Record | None:
    same = [
        r
        for r in records
        if (r.method, r.ipc) == (method, ipc) and (not key or config_value(r, f"method.{key}") == value)
    ]
    return max(same, key=by_budget, default=None)


def _best(rows: Mapping[str, _Cells], column: int) -> Record | None:
    ranked = [
        r
        for cells in rows.values()
        for r in cells[column]
        if r is not None and not _is_test(r) and len(r.sample()) > 1
    ]
    return max(ranked, key=lambda r: r.summary().mean, default=None)  # the first of several


def _is_test(record: Record) -> bool:
    return origin(record).choice == "test"


def _texts(name: str, cells: _Cells, bold: set[str]) -> list[str]:
    return [name, *("<br>".join(_text(r, bold) for r in cell) if any(cell) else "" for cell in cells)]


def _text(record: Record | None, bold: set[str]) -> str:
    if record is None:
        return "–"
    s, n = record.summary(), networks(record)
    text = number([s.mean, s.std], record.main_metric)
    text = f"**{text}**" if record.key in bold else text
    return text + f" (n={n})" * (n != _USUAL) + f" {_MARK}" * _is_test(record)
