"""Sets of nodes of one graph: accuracy, published numbers, controls and bytes, one row per entry."""

from __future__ import annotations

from collections.abc import Sequence

from dd_bench.records.overrides import base_name
from dd_bench.records.record import Record

from ..core.published import PublishedSet
from ..core.row_labels import record_labels
from .formatting import interval_bounds, number, published_text, sets_with, with_marks
from .markup import MARKDOWN, markdown_table

NETWORK = "node_gcn"
CONTROLS = {
    "best_val": "best step",
    "no_edges": "without edges",
    "mlp": "MLP",
    "label_propagation": "label propagation",
}
"""Metrics of the evaluator `node` that have a column, and its header."""


def node_table(entries: Sequence[Record], published: Sequence[PublishedSet], dataset: str) -> str:
    """Return a Markdown table of a dataset's entries under `node-last` with GCN, or '' if there are none.

    Rows are sorted by the number of labelled nodes and then by accuracy, and the whole graph is the first one. Entries
    of all widths and kinds of labels have a row, which says so. Published numbers are those at the IPC of the entry.
    """
    found = [
        r
        for r in entries
        if (r.dataset, r.status, r.protocol.name) == (dataset, "done", "node-last")
        and base_name(r.model) == NETWORK
    ]
    if not found:
        return ""
    labels = record_labels(found)
    printed = [p for p in published if (p.dataset, p.model) == (dataset, NETWORK)]
    found.sort(key=lambda r: (r.method != "full", r.sizes["labelled nodes"], -r.summary().mean))
    whole = next((sum(r.stored_bytes.values()) for r in found if r.method == "full"), None)
    rows = []
    for r in found:
        size = sum(r.stored_bytes.values())
        row = [
            with_marks(_label(r, labels[r.key]), [r]),
            str(r.sizes["labelled nodes"]),
            f"{size:,}" + ("" if whole is None or size <= whole else f" ({size / whole:.1f} × the graph)"),
            _accuracy(r),
            " / ".join(dict.fromkeys(published_text(p) for s in printed for p in s.at(r.method, r.ipc))),
        ]
        rows.append([MARKDOWN.escape(x) for x in [*row, *(_control(r, metric) for metric in CONTROLS)]])
    return markdown_table(
        ["method", "labelled nodes", "bytes", "accuracy", "published", *CONTROLS.values()], rows
    )


def _accuracy(record: Record) -> str:
    """Return the mean with its 95 % interval: `79.1 [78.9, 79.3]`."""
    ends = ", ".join(
        number([x], record.main_metric) for x in interval_bounds(record, record.main_metric) or ()
    )
    return f"{number([record.summary().mean], record.main_metric)} [{ends}]"


def _label(record: Record, label: str) -> str:
    """Return the label with the width of the networks and the kind of labels, if they are not the usual ones."""
    width = record.config["model"].get("hidden", 256)
    notes = [f"width {width}"] * (width != 256) + ["soft labels"] * (record.label_mode != "hard")
    return ", ".join([label, *notes])


def _control(record: Record, metric: str) -> str:
    """Return the mean of a metric, or '' if it was not measured on every set."""
    if sets_with(record, metric) != sets_with(record, record.main_metric):
        return ""
    return number([record.summary(metric).mean], record.main_metric)
