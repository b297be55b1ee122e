"""The budget of an entry compared with that of a paper: iterations, experts, real images per step, network width."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dd_bench.records.config_diff import leaves, shipped_config, shipped_yaml
from dd_bench.records.record import Record

BUDGET_KEYS = {
    "iterations": "iterations",
    "experts.count": "experts",
    "experts.recipe.epochs": "epochs per expert",
    "batch_real": "real images per class and step",
}
"""Hyper-parameters of methods whose product is most of the cost, and their names in text."""


def compare_budget(records: Sequence[Record], reference: str | None, network: str | None) -> tuple[str, bool]:
    """Return the budget of entries next to the paper's, and whether it is smaller in any respect.

    The text has the range of each hyper-parameter over the entries, e.g. `iterations 200 to 300 of 5,000`.

    Args:
        records: the entries; without entries, the text is empty.
        reference: experiment with the paper's settings, e.g. `paper/cifar10/ftd_ipc1`; None: the YAML of the method.
        network: configuration name of the paper's network; None: the network of the entries.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    others: dict[str, None] = {}
    for record in records:
        for name, ours, paper in _numbers(record, reference):
            found[name].append((ours, paper))
        own = record.model.partition("(")[0]
        width = record.config.get("model", {}).get("width")
        paper_width = shipped_config("model", own).get("width")
        if network and network != own:
            others[f"{record.model} instead of {network}"] = None
        elif width and paper_width:
            found["width"].append((width, paper_width))
    lines = [
        f"{name} {_range(o for o, _ in pairs)} of {_range(p for _, p in pairs)}"
        for name, pairs in found.items()
    ]
    smaller = bool(others) or any(ours < paper for pairs in found.values() for ours, paper in pairs)
    return ", ".join([*lines, *others]) or ("no optimisation" if records else ""), smaller


def _range(values: Iterable[int]) -> str:
    low, *_, high = sorted([*values] * 2)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _numbers(record: Record, reference: str | None) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each hyper-parameter that both have, our value and the paper's."""
    ours = dict(leaves(record.config.get("method", {})))
    paper: dict[str, Any] = dict(leaves(shipped_config("method", record.method)))
    if reference:
        experiment = shipped_yaml("experiment", reference)
        if not experiment:
            raise ValueError(f"conf/experiment/{reference}.yaml does not exist")
        paper |= dict(leaves(experiment.get("method", {})))
    for key, name in BUDGET_KEYS.items():
        if type(ours.get(key)) is int and type(paper.get(key)) is int:
            yield name, ours[key], paper[key]
