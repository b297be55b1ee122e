"""Values of records as text: rounded for table cells, unrounded for CSV with one line per record."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dd_bench.records.record import Record
from dd_bench.runtime.spreadsheet import csv_cell

from ..core.boards import Board
from ..core.budget import size_text
from ..core.entries import ACCURACY
from ..core.hyperparameters import MARKS, origin
from ..core.published import Published
from ..core.verified import Verdict
from .markup import MARKDOWN, markdown_table

STAGES = ("prepare", "distill", "relabel", "reference", "evaluate")


def number(values: Sequence[float | None], metric: str, decimals: int | None = None) -> str:
    """Return `mean ± std`, or `mean` if std is None. An accuracy is in percent.

    By default, an accuracy has one decimal and other metrics have four.
    """
    scale, digits = (100, 1) if metric == ACCURACY else (1, 4)
    digits = digits if decimals is None else decimals
    return " ± ".join(f"{scale * x:.{digits}f}" for x in values if x is not None)


def interval(record: Record, metric: str) -> str:
    """Return e.g. `60.1 (58.9–61.3)`: the mean and its 95 % interval, if it has one."""
    mean, bounds = number([record.summary(metric).mean], record.main_metric), interval_text(record, metric)
    return f"{mean} ({bounds})" if bounds else mean


def interval_text(record: Record, metric: str) -> str:
    """Return e.g. `58.9–61.3`: the ends of the 95 % interval; '' if there is none."""
    return "–".join(number([x], record.main_metric) for x in interval_bounds(record, metric) or ())


def interval_bounds(record: Record, metric: str) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval of a mean, or None.

    If there is only one value, the interval is the one that the evaluator measured, if any: `<metric>_low` and
    `<metric>_high`. For a rank correlation this is the bootstrap interval over the ranked networks.
    """
    s = record.summary(metric)
    if s.ci_low is not None and s.ci_high is not None:
        return s.ci_low, s.ci_high
    low, high = (f"{metric}_{end}" for end in ("low", "high"))
    if s.num_networks == 1 and {low, high} <= set(record.metrics):
        return record.summary(low).mean, record.summary(high).mean
    return None


def networks(record: Record) -> str:
    """Return the number of fresh networks: `5`, `3×5` (sets × networks), or `14 in 3 sets` if the sets differ."""
    by_set = Counter(s.set for s in record.scores if s.metric == record.main_metric)
    if len(by_set) < 2:
        return str(by_set.total())
    sizes = set(by_set.values())
    return f"{len(by_set)}×{sizes.pop()}" if len(sizes) == 1 else f"{by_set.total()} in {len(by_set)} sets"


def with_marks(label: str, records: Iterable[Record]) -> str:
    """Return a label with the marks of how the hyper-parameters of its records were chosen, e.g. `mtt [T]`."""
    marks = sorted({MARKS[origin(record).choice] for record in records} - {""})
    return f"{label} [{', '.join(marks)}]" if marks else label


def printed(published: Published, with_std: bool = True) -> str:
    """Return a published number in percent, with one decimal: `mean ± std`, or the mean if no std is published."""
    values = (published.mean, published.std if with_std else None)
    return " ± ".join(f"{x:.1f}" for x in values if x is not None)


def published_text(published: Published) -> str:
    """Return `printed`, with † after a number that was quoted from memory or from a secondary source."""
    return printed(published) + "†" * (not published.verified)


def entries_table(board: Board, verdicts: Mapping[str, Verdict]) -> str:
    """Return a Markdown table with one row per record of the board.

    It has a column of verdicts (by digest of the entry) if there is a verdict on one of them.
    """
    has_verdicts = any(r.digest in verdicts for r in board.records)
    stages = [stage for stage in STAGES if any(stage in r.seconds for r in board.records)]
    header = ["Method", "IPC", "Mean ± std", "n", "95 % CI", "Hyper-parameters", "Labels", "Bytes", "× 8-bit"]
    sizes = list(dict.fromkeys(name for r in board.records for name in r.sizes))
    header += [name.capitalize() for name in sizes]
    header += [f"{s}, s" for s in stages]
    header += ["Device", "Revision", *["Verified"] * has_verdicts, "Entry"]
    rows = []
    for r in board.records:
        row = [r.method, str(r.ipc), r.status, "", ""]
        if r.status == "done":
            s = r.summary()
            row[2:] = [number([s.mean, s.std], r.main_metric), networks(r), interval_text(r, r.main_metric)]
        row += [board.origins[r.key].choice, r.label_mode]
        row.append(f"{sum(r.stored_bytes.values()):,}" if r.stored_bytes else "")
        row.append(size_text(board.sizes[r.key]) if r.key in board.sizes else "")
        row += [f"{r.sizes[name]:,}" if name in r.sizes else "" for name in sizes]
        row += [f"{r.seconds[stage]:,.1f}" if stage in r.seconds else "" for stage in stages]
        row += [r.device, (r.code.revision or "")[:8] + "+" * bool(r.code.dirty)]
        row += [verdicts[r.digest].mark(r) if r.digest in verdicts else ""] * has_verdicts
        row.append(r.digest[:16])
        rows.append([MARKDOWN.escape(x) for x in row])
    return markdown_table(header, rows)


def all_metrics_table(board: Board) -> str:
    """Return a Markdown table of all metrics of the board's entries with 95 % intervals, the board's metric first.

    The table has one row per entry, or one row per metric if there are more metrics than entries. It includes the
    controls, which separate the effect of the set from the effect of its labels or graph sizes. Return '' if the only
    metric is the board's.
    """
    main = board.track.metric
    done = [r for r in board.records if r.status == "done"]
    others = sorted({metric for r in done for metric in r.metrics} - {main}, key=_natural)
    if not others:
        return ""
    header = ["Method", "IPC", "Entry", "n", main, *others]
    rows = [
        [r.method, str(r.ipc), r.digest[:16], networks(r)]
        + [interval(r, metric) + _part(r, metric) if metric in r.metrics else "" for metric in header[4:]]
        for r in done
    ]
    if len(others) > len(done):
        header, *rows = map(list, zip(header, *rows, strict=True))
    return markdown_table(header, [[MARKDOWN.escape(x) for x in row] for row in rows], left=1)


def sets_with(record: Record, metric: str) -> set[int]:
    """Return the numbers of the sets that have values of a metric."""
    return {s.set for s in record.scores if s.metric == metric}


def _part(record: Record, metric: str) -> str:
    """Return e.g. ` in 2 of 3 sets` if some sets have no value of a metric, otherwise ''."""
    every, own = sets_with(record, record.main_metric), sets_with(record, metric)
    return f" in {len(own)} of {len(every)} sets" if own < every else ""


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `step 10` after `step 9`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]+)", name)]


def csv_text(items: Iterable[tuple[Board, Record]]) -> str:
    """Return CSV with one line per record: all fields of its track and the statistics of its main metric.

    An accuracy is a fraction in [0, 1]. `values` has the unrounded value of each network, ordered by set and network.
    Statistics have 12 significant digits, so that they do not depend on the machine's rounding. `config`, `controls`,
    `stored_bytes`, `sizes` and `seconds` are JSON. `relative_size` is the stored bytes divided by those of IPC real
    samples per class with 8 bits. `hyperparameters` is how they were chosen: paper, validation, untuned or test. An
    empty field means that there is no value.
    """
    lines = [_line(board, record) for board, record in items]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else ["key"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _digits(x: float | None) -> str | None:
    return None if x is None else f"{x:.12g}"


def _controls(r: Record) -> dict[str, str | None]:
    """Return the mean of each metric except the main metric, by name."""
    return {m: _digits(r.summary(m).mean) for m in r.metrics if m != r.main_metric}


def _line(board: Board, r: Record) -> dict[str, Any]:
    done = r.summary() if r.status == "done" else None
    statistics = ("mean", "std", "std_networks", "std_sets", "ci_low", "ci_high", "num_sets", "num_networks")
    scores = sorted((s for s in r.scores if s.metric == r.main_metric), key=lambda s: (s.set, s.network))
    return {
        **board.track._asdict(),
        "ipc": r.ipc,
        "method": r.method,
        "status": r.status,
        "reason": r.reason,
        "place": board.places.get(r.key),
        "hyperparameters": board.origins[r.key].choice,
        **{name: _digits(getattr(done, name)) if done else None for name in statistics},
        "values": " ".join(repr(s.value) for s in scores),
        "controls": json.dumps(_controls(r), sort_keys=True),
        "teachers_met": " ".join(f"{t.name}:{(t.digest or '?')[:16]}:{t.accuracy}" for t in r.teachers),
        "teacher_forwards": r.teacher_forwards or None,
        "stored_bytes": json.dumps(r.stored_bytes, sort_keys=True),
        "relative_size": _digits(board.sizes.get(r.key)),
        "sizes": json.dumps(r.sizes, sort_keys=True) if r.sizes else None,
        "seconds": json.dumps(r.seconds, sort_keys=True),
        "device": r.device,
        "environment": r.environment.model_dump_json() if r.environment else None,
        "revision": r.code.revision,
        "dirty": r.code.dirty,
        "numbers": r.code.numbers,
        "real_digest": r.real_digest,
        "set_digests": " ".join(r.set_digests),
        "created": r.created,
        "key": r.key,
        "digest": r.digest,
        "config": json.dumps(r.config, sort_keys=True),
    }
