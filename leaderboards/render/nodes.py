"""Sets of nodes of one graph: accuracy, published numbers, controls and bytes, one row per entry."""

from __future__ import annotations

from collections.abc import Sequence

from dd_bench.records.record import Record

from ..core.published import PublishedSet
from ..core.row_labels import record_labels
from .formatting import interval_text, number, published_text, with_marks
from .markup import MARKDOWN, markdown_table

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
        if (r.dataset, r.status, r.protocol.name) == (dataset, "done", "node-last") and _is_gcn(r)
    ]
    if not found:
        return ""
    labels = record_labels(found)
    printed = [p for p in published if (p.dataset, p.model) == (dataset, "node_gcn")]
    found.sort(key=lambda r: (r.method != "full", r.sizes["labelled nodes"], -r.summary().mean))
    whole = next((sum(r.stored_bytes.values()) for r in found if r.method == "full"), None)
    rows = []
    for r in found:
        size = sum(r.stored_bytes.values())
        row = [
            with_marks(_label(r, labels[r.key]), [r]),
            str(r.sizes["labelled nodes"]),
            f"{size:,}" + ("" if whole is None or size <= whole else f" ({size / whole:.1f} × the graph)"),
            f"{number([r.summary().mean], r.main_metric)} [{interval_text(r, r.main_metric).replace('–', ', ')}]",
            " / ".join(dict.fromkeys(published_text(p) for s in printed for p in s.at(r.method, r.ipc))),
        ]
        rows.append([MARKDOWN.escape(x) for x in [*row, *(_control(r, metric) for metric in CONTROLS)]])
    return markdown_table(
        ["method", "labelled nodes", "bytes", "accuracy", "published", *CONTROLS.values()], rows
    )


def _is_gcn(record: Record) -> bool:
    return record.model.partition("(")[0] == "node_gcn"


def _label(record: Record, label: str) -> str:
    """Return the label with the width of the networks and the kind of labels, if they are not the usual ones."""
    width = record.config["model"].get("hidden", 256)
    notes = [f"width {width}"] * (width != 256) + ["soft labels"] * (record.label_mode != "hard")
    return ", ".join([label, *notes])


def _control(record: Record, metric: str) -> str:
    """Return the mean of a metric, or '' if it was not measured on every set."""
    sets = {s.set for s in record.scores if s.metric == record.main_metric}
    if {s.set for s in record.scores if s.metric == metric} != sets:
        return ""
    return number([record.summary(metric).mean], record.main_metric)
