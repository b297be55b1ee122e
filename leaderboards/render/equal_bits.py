"""Sets of different methods at equal bits, compared with the best real images at these bits.

A table has all distilled sets, and of the real images the best set of each of the three best methods, of k-means and of
random images. The others are counted. As on the boards, the largest of several measurements of a set, or of a method
with the same settings, is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from dd_bench.records.record import Record

from ..core.bits import EqualBits, equal_bits, precision_of, stored_bits, tracks
from ..core.boards import without_replaced
from ..core.budget import Budgets, budgets
from ..core.differences import difference
from ..core.entries import CONTROL, has_stored_precision
from ..core.method_info import selects_real
from .bits import mark_lines, points, set_labels
from .formatting import networks, number, with_marks
from .markup import MARKDOWN, markdown_table

SHOWN = 3
"""Number of methods that select real images whose best set is shown, besides k-means and random images."""
_KMEANS = "kmeans"
_NOTE = (
    "Differences are from the real images with the highest mean at these bits, and from the best k-means set, over "
    "networks with the same seeds. These real images were chosen by the accuracies of this table, so their accuracy "
    "is optimistic and the differences are conservative for distilled sets. Where a method has one set, intervals are "
    "over the networks of this set and do not include the variation between runs of the method."
)


def equal_bits_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a title and a Markdown table for each track and budget; the last table of a track has the notes."""
    known = budgets(records)
    found = []
    for track, group in tracks(records).items():
        compared = equal_bits(without_replaced(group), known)
        for i, budget in enumerate(compared):
            name = f"IPC {budget.ipc} × {'float32' if budget.width == 32 else '8 bits'}, {budget.bits:,} bits"
            lines = [_table(budget, known), *_hidden_line(budget, track.path)]
            if i == len(compared) - 1:
                shown = [r for one in compared for r in _shown(one.records)]
                lines += [MARKDOWN.escape(_NOTE), *mark_lines(shown)]
            found.append((f"{track.title}, {track.model}: equal bits, {name}", "\n\n".join(lines)))
    return found


def best_real(records: Sequence[Record], method: str | None = None) -> Record | None:
    """Return the real images with the highest mean of those with at least two values, of one method or of all."""
    found = [
        r
        for r in records
        if (selects_real(r.method) if method is None else r.method == method) and len(r.sample()) > 1
    ]
    return max(found, key=lambda r: (r.summary().mean, -stored_bits(r), r.key), default=None)


def _shown(records: Sequence[Record]) -> list[Record]:
    """Return the records of a budget that have a row, best first."""
    best_of: dict[str, Record] = {}
    for r in records:  # best first
        if selects_real(r.method):
            best_of.setdefault(r.method, r)
    kept = {_KMEANS, CONTROL, *[m for m in best_of if m not in (_KMEANS, CONTROL)][:SHOWN]}
    if best := best_real(records):  # the highest mean may be a single value
        best_of[best.method] = best
        kept.add(best.method)
    return [r for r in records if not selects_real(r.method) or (r.method in kept and r is best_of[r.method])]


def _table(budget: EqualBits, known: Budgets) -> str:
    label_of = set_labels(budget.records)
    best, kmeans = best_real(budget.records), best_real(budget.records, _KMEANS)
    references = {r.key: r for r in (best, kmeans) if r}
    header = ["Method", "IPC", "Images stored as", "Bits", "Mean ± std", "n"]
    header += [f"Difference from {MARKDOWN.escape(label_of[key])}" for key in references]
    rows = []
    for r in _shown(budget.records):
        s = r.summary()
        row = [with_marks(label_of[r.key], [r]), str(r.ipc), precision_of(r, known), f"{stored_bits(r):,}"]
        row += [number([s.mean, s.std], r.main_metric), networks(r)]
        row += ["" if r is other else _difference(r, other) for other in references.values()]
        rows.append([MARKDOWN.escape(x) for x in row])
    return markdown_table(header, rows, left=3)


def _difference(record: Record, reference: Record) -> str:
    return points(difference(record, reference), record) if len(record.sample()) > 1 else ""


def _hidden_line(budget: EqualBits, board: str) -> list[str]:
    """Return a line with the number of selections without a row and where they are; no line if there are none."""
    shown = {r.key for r in _shown(budget.records)}
    hidden = [r for r in budget.records if r.key not in shown]
    if not hidden:
        return []
    highest = number([max(r.summary().mean for r in hidden)], hidden[0].main_metric)
    quantised = any(map(has_stored_precision, hidden))
    where = f"on the board `leaderboards/tables/{board}.md`" + " or in the tables of precisions" * quantised
    if len(hidden) == 1:
        return [f"One other set of real images, {highest}, is {where}."]
    return [f"{len(hidden)} other sets of real images, at most {highest}, are {where}."]
