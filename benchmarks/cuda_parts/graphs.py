"""Mirage and the evaluation of its set with graph networks, on CUDA and on the CPU of the same machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cuda_parts.card import Card, Row


def rows(card: Card) -> Iterator[Row]:
    """Yield a row for each device; the guard is the metric of both."""
    size = ["dataset.graphs=60", "dataset.base=6", "ipc=2"] if card.small else ["ipc=10"]
    short = (
        ["protocol.recipe.steps=4", "evaluator.num_networks=2"]
        if card.small
        else ["evaluator.num_networks=5"]
    )
    for device in dict.fromkeys((card.device, "cpu")):
        record, warned = replace(card, device=device).run(["method=mirage", "dataset=motifs", *size, *short])
        found = record.summary()
        yield {
            "table": "Mirage on motifs, and its evaluation",
            "device": device,
            "networks": found.num_networks,
            "distil, s": round(record.seconds.get("distill", 0.0), 2),
            "evaluate, s": round(record.seconds.get("evaluate", 0.0), 2),
            f"{record.main_metric}, %": round(100 * found.mean, 2),
            "data": {"values": record.sample(), "sets": record.set_digests, "warnings": warned},
        }
