"""The page of one entry: all its data, and the commands that reproduce it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from typing import Any

from dd_bench.records.bibtex import bibtex
from dd_bench.records.config_diff import leaves
from dd_bench.records.record import Record

from ..core.boards import Board
from ..core.budget import size_text
from ..core.citations import Cards, cited
from ..core.commands import evaluate_command, run_command
from ..core.entries import REFERENCE, entry_name, entry_path
from ..core.hyperparameters import CHOSEN
from ..core.verified import Verdict
from ..render.formatting import interval_text, networks, number
from ..render.legend import OVER_BUDGET, TEST, TOO_FEW, UNTESTED
from .addresses import dataset_url, method_url
from .cells import heading
from .sets import KnownSet, pull_commands

CAPTIONS = {
    "images": "The synthetic images, one row per class.",
    "graphs": "Graphs of the set.",
    "nodes": "Nodes of the set, one row per class. Each square has one row per class, with the features that are most "
    "typical of this class; dark is high.",
}
"""Captions of the pictures of sets."""
_PLACES = {
    "best": "Highest mean of its board at this IPC.",
    "tied": f"Not significantly different from the best of its board at this IPC ({TEST}).",
    "behind": f"Significantly below the best of its board at this IPC ({TEST}).",
    "too_few": f"{TOO_FEW} ({TEST}).",
    "untested": f"{UNTESTED}.",
    "over_budget": f"{OVER_BUDGET}.",
    "chosen_on_test": f"{CHOSEN['test']}.",
}


def entry_page(
    record: Record,
    board: Board,
    sets: Mapping[str, KnownSet],
    cards: Cards,
    verdict: Verdict | None,
) -> dict[str, Any]:
    """Return the values for the template of an entry's page."""
    main, place = record.main_metric, board.places.get(record.key)
    known = [sets[d] for d in record.set_digests if d in sets]
    score: str = record.status
    if record.status == "done":
        s = record.summary()
        score = f"{number([s.mean, s.std], main)} {'% ' if main == 'accuracy' else ''}{main}, n={networks(record)}"
    return {
        "title": f"{record.method} on {record.dataset}, "
        + ("whole training set" if record.method == REFERENCE else f"IPC {record.ipc}"),
        "board": f"boards/{board.track.slug}.html",
        "board_title": heading(board.track),
        "score": score,
        "place": _PLACES.get(place or "", record.reason or "") + (f" {verdict.summary()}" if verdict else ""),
        "notes": record.notes,
        "picture": known[0].picture if known else None,
        "picture_text": CAPTIONS[known[0].samples] if known else "",
        "method": record.method,
        "method_page": method_url(record.method),
        "dataset": record.dataset,
        "dataset_page": dataset_url(record.dataset),
        "commands": list(_commands(record, known)),
        "pulls": pull_commands(known[0]) if known else [],
        "files": known[0].files if known else {},
        "missing": "" if known or not record.set_digests else _missing(len(record.set_digests)),
        "file": entry_name(record),
        "metrics": [_metric(record, name) for name in record.metrics],
        "facts": [(name, value) for name, value in _facts(record, board) if value],
        "config": "\n".join(f"{k}: {v}" for k, v in sorted(leaves(record.config), key=itemgetter(0))),
        "bibtex": bibtex(cited([record], cards)),
        "digest": record.digest[:16],
    }


def _commands(record: Record, known: list[KnownSet]) -> Iterator[tuple[str, str]]:
    """Yield pairs of a description and a command. Stop at the first command that overrides cannot express."""
    revision = f" at revision {record.code.revision[:12]}" if record.code.revision else ""
    distilled_in_run = record.config.get("set") is None
    with suppress(ValueError):
        if distilled_in_run and (command := run_command(record)):
            yield f"Distil and evaluate{revision}:", command
        for one in known[:1]:
            if one.command and not distilled_in_run:
                yield "Distil the set:", one.command
            if len(record.set_digests) == 1:
                yield (
                    "Evaluate the published set again, in a checkout:",
                    evaluate_command(record, f"leaderboards/sets/{one.path}"),
                )
                yield (
                    "Retrain its networks, compare them and save the verdict, in a checkout:",
                    f"dd-bench verify leaderboards/entries/{entry_path(record)}",
                )


def _missing(count: int) -> str:
    which = f"None of the {count} sets is" if count > 1 else "The set is not"
    return f"{which} stored here, so there is no picture and no download. The command above distils it again."


def _metric(record: Record, name: str) -> dict[str, str]:
    s, main = record.summary(name), record.main_metric
    values = "; ".join(" ".join(number([v], main) for v in vs) for vs in record.by_set(name))
    std = "" if s.std is None else number([s.std], main)
    return {
        "name": name,
        "mean": number([s.mean], main),
        "ci": interval_text(record, name),
        "std": std,
        "n": str(s.num_networks),
        "each": values,
    }


def _row(record: Record, board: Board) -> str:
    """Return the row of an entry with the settings that distinguish it; '' if its method has only one row."""
    label = board.label_of.get(record.key, "")
    return f"{label} ({board.settings[label]})" if label in board.settings else ""


def _facts(record: Record, board: Board) -> list[tuple[str, str]]:
    code, p = record.code, record.protocol
    revision = f"{code.revision or 'unknown'}{' (uncommitted changes)' if code.dirty else ''}"
    parts = ", ".join(f"{k} {v:,}" for k, v in record.stored_bytes.items())
    origin = board.origins[record.key]
    return [
        ("Protocol", f"{p.name} v{p.version}, selection {record.selection}, labels {record.label_mode}"),
        ("Network", record.model),
        ("Evaluator", record.evaluator),
        ("Hyper-parameters chosen", f"{origin.choice}: {origin.reason}"),
        ("Row of its board", _row(record, board)),
        ("Measured", record.created),
        ("Device", record.device),
        ("Environment", record.environment.summary() if record.environment else ""),
        ("Flags of torch", record.environment.flags_text() if record.environment else ""),
        ("Code", f"dd_bench {code.version}, revision {revision}, numbers version {code.numbers}"),
        ("Seconds", ", ".join(f"{k} {v:,.1f}" for k, v in record.seconds.items())),
        ("Peak memory", ", ".join(f"{k} {v / 2**20:,.0f} MiB" for k, v in record.peak_memory.items())),
        ("Stored bytes per set", parts and f"{sum(record.stored_bytes.values()):,} ({parts})"),
        (
            "Bytes relative to IPC real samples with 8 bits",
            size_text(board.sizes[record.key]) if record.key in board.sizes else "",
        ),
        ("Sizes", ", ".join(f"{k} {v:,}" for k, v in record.sizes.items())),
        ("Teachers", ", ".join(f"{t.name} {(t.digest or '')[:8]} ({t.accuracy})" for t in record.teachers)),
        (
            "Teacher forwards per network",
            f"{record.teacher_forwards:,}" if record.teacher_forwards else "",
        ),
        ("Seeds", ", ".join(f"{k} {v}" for k, v in record.seeds.items())),
        ("Content key", record.key),
        ("Record, sha256", record.digest),
        ("Real set", record.real_digest),
        ("Synthetic sets", " ".join(record.set_digests)),
        ("Libraries", ", ".join(f"{k} {v}" for k, v in record.versions.items())),
    ]
