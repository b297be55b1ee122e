"""The budget of an entry compared with that of a paper: iterations, experts, real images per step, network width."""

from __future__ import annotations

from collections.abc import Iterator
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


def compare_budget(record: Record, reference: str | None, network: str | None) -> tuple[str, bool]:
    """Return the budget of an entry next to the paper's, and whether it is smaller in any respect.

    Args:
        record: the entry.
        reference: experiment with the paper's settings, e.g. `paper/cifar10/ftd_ipc1`; None: the YAML of the method.
        network: configuration name of the paper's network; None: the network of the entry.
    """
    lines = [f"{name} {ours:,} of {paper:,}" for name, ours, paper in _numbers(record, reference)]
    smaller = any(ours < paper for _, ours, paper in _numbers(record, reference))
    own = record.model.partition("(")[0]
    width, paper_width = (
        record.config.get("model", {}).get("width"),
        shipped_config("model", own).get("width"),
    )
    if network and network != own:
        lines.append(f"{record.model} instead of {network}")
        smaller = True
    elif width and paper_width:
        lines.append(f"width {width} of {paper_width}")
        smaller |= width < paper_width
    return ", ".join(lines) or "no optimisation", smaller


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
