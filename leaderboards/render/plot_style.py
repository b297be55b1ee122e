"""What all plots share: their type, and markers and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from dd_bench.records.record import Record

BLUE, ORANGE, SKY, VERMILION, PURPLE, GREEN, BLACK, GREY = (
    *("#0072b2", "#e69f00", "#56b4e9", "#d55e00"),
    *("#cc79a7", "#009e73", "#000000", "#767676"),
)
"""The palette of Okabe and Ito (2008), and a grey."""


class Plot(NamedTuple):
    """A plot that is not drawn yet."""

    name: str  # path of its file without suffix, relative to the folder of plots
    records: Sequence[Record]  # the entries that it shows
    figure: Callable[[Any], Any]  # takes `matplotlib.pyplot` and returns a figure
    labels: Sequence[str] = ()  # of its rows

    @property
    def description(self) -> str:
        """Return the labels and the digests of the entries, which the file contains as its description."""
        rows = f"Rows: {', '.join(self.labels)}. " if self.labels else ""
        return f"{rows}Entries: " + " ".join(sorted(r.digest[:16] for r in self.records))


def styles() -> Iterator[tuple[str, str]]:
    """Yield pairs of a colour and a marker; neighbours differ in both, and all 42 pairs are different."""
    colours, shapes = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE), "os^DvPX"
    for i in range(len(colours) * len(shapes)):
        yield colours[i % len(colours)], shapes[i % len(shapes)]
