"""The accuracy of the same networks in bf16, tf32 and fp32, and the time of convolutions by layout."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import convolution_layout
import precision
import torch

from cuda_parts.card import Card, Row

PROTOCOL, WIDTH, NETWORKS = "dsa-1000", 128, 20


def rows(card: Card) -> Iterator[Row]:
    """Yield the paired comparisons of `precision.py` and the table of `convolution_layout.py`, the longest row last."""
    yield from guards(card, ipc=1)
    yield from layouts(card)
    if not card.small:
        yield from guards(card, ipc=10)


def layouts(card: Card) -> Iterator[Row]:
    """Yield a row for each type, number of networks and shape."""
    networks, batch, repeats = ([2], 2, 1) if card.small else ([20, 5], 100, 5)
    for row in convolution_layout.measure(torch.device(card.device), networks, batch, repeats):
        milliseconds = {f"{name}, ms": round(ms, 2) for name, ms in row["ms"].items()}
        yield {
            "table": "Convolutions of networks in lock step, forward and backward",
            **{name: row[name] for name in ("type", "networks", "channels", "side")},
            **milliseconds,
        }


def guards(card: Card, ipc: int) -> Iterator[Row]:
    """Yield a row for each precision below fp32. The networks in fp32 are trained once."""
    real, lower = card.real_set(), ("bf16",) if card.small else ("bf16", "tf32")
    protocol, width, count = ("quick", 8, 2) if card.small else (PROTOCOL, WIDTH, NETWORKS)
    networks = precision.fresh_networks(real, protocol, ipc, width, card.runtime("fp32"))
    exact, exact_seconds = precision.accuracies(networks, card.runtime("fp32"), count)
    for name in lower:
        scores, seconds = precision.accuracies(networks, card.runtime(name), count)
        found = precision.compare(scores, exact, margin=0.01)
        mean, low, high = (100 * found[key] for key in ("difference", "low", "high"))
        yield {
            "table": f"The same networks in lower precision, {protocol}, width {width}, {real.name}",
            "IPC": ipc,
            "precision": name,
            "networks": count,
            "fp32, %": f"{100 * fmean(exact):.2f}",
            "lower, %": f"{100 * fmean(scores):.2f}",
            "difference (paired)": f"{mean:+.2f} ({low:+.2f} to {high:+.2f})",
            "guard": found["guard"],
            "fp32, s": exact_seconds,
            "lower, s": seconds,
            "data": {"fp32": exact, name: scores},
        }
