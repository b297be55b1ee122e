"""What all plots share: their type, their layouts, and markers and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dd_bench.records.record import Record

from ..core.method_info import Family

BLUE, ORANGE, SKY, VERMILION, PURPLE, GREEN, BLACK, GREY = (
    *("#0072b2", "#d38000", "#3b9bd4", "#d55e00"),
    *("#b5568f", "#009e73", "#000000", "#6b7280"),
)
"""The palette of Okabe and Ito (2008) and a grey. Orange, sky and purple are darker, for a contrast of 3:1 on white."""

FAMILY_COLOURS: dict[Family, tuple[str, str]] = {
    "reference": (GREY, "#9aa4ae"),
    "selection": (BLUE, "#56b4e9"),
    "coreset": (SKY, "#a8ddff"),
    "matching": (ORANGE, "#f0b340"),
    "trajectory": (GREEN, "#2fc99a"),
    "decoupled": (PURPLE, "#e29ac6"),
    "generative": ("#857100", "#dccf45"),
    "graphs": (VERMILION, "#ff8a4c"),
    "other": ("#1b1f24", "#e6e9ec"),
}
"""Colours of the families of methods on light and on dark pages. Figures of papers colour methods; see `styles`."""


LEGEND_HEIGHT = 0.5
"""Height in inches of a legend, three lines, for which a figure of a paper has room."""


@dataclass(frozen=True)
class Layout:
    """Where a figure is shown: on a web page, or in one column or both columns of a paper."""

    name: str
    font: float  # points
    width: float | None  # inches of the whole figure; None: each figure has its own width
    narrow: bool = False  # panels below each other, and the legend below them
    rc: Mapping[str, Any] = field(default_factory=dict)  # further parameters of matplotlib

    @property
    def marker(self) -> float:
        """Size of markers in points."""
        return 5 if self.width is None else 3

    def panels(self, plt: Any, count: int, size: tuple[float, float], height: float, **options: Any) -> Any:
        """Return a figure and the list of its panels.

        Args:
            plt: `matplotlib.pyplot`.
            count: number of panels, side by side, or below each other in a narrow layout.
            size: width and height of the figure on a page, in inches.
            height: height of a panel in a paper, in inches.
            **options: of `plt.subplots`.
        """
        shape = (count, 1) if self.narrow else (1, count)
        if self.width is not None:
            size = (self.width, height * shape[0])
        figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained", **options)
        return figure, list(axes.flat)

    def legend(self, figure: Any, axis: Any) -> None:
        """Add the legend of a panel: to the right of it, or below the figure in a paper, which becomes higher."""
        if self.width is None:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            return
        handles, labels = axis.get_legend_handles_labels()
        longest = max(map(len, labels), default=1)
        columns = max(1, int(self.width * 72 / self.font / (0.55 * longest + 3.5)))
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False,
            handletextpad=0.4, columnspacing=1.0, borderaxespad=0.2,
        )  # fmt: skip
        width, height = figure.get_size_inches()
        needed = legend.get_window_extent(figure.canvas.get_renderer()).height / figure.dpi
        figure.set_size_inches(width, height + max(0.0, needed - LEGEND_HEIGHT))

    def title(self, figure_or_axis: Any, text: str) -> None:
        """Add a title on a page. In a paper, the caption has its content."""
        if self.width is None:
            add = getattr(figure_or_axis, "suptitle", None) or figure_or_axis.set_title
            add(text, fontsize="medium")


_PAPER = {
    "lines.linewidth": 0.9,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.titlesize": 8,
    "pdf.fonttype": 42,  # TrueType fonts; some publishers reject the default, Type 3
}
PAGE = Layout("page", 10, None)
COLUMN = Layout("column", 8, 3.3, narrow=True, rc=_PAPER)
WIDE = Layout("wide", 8, 6.9, rc=_PAPER)
LAYOUTS = {layout.name: layout for layout in (PAGE, COLUMN, WIDE)}
"""Layouts by name: a web page, one column of a paper (3.3 inches), and both columns (6.9 inches)."""


class Plot(NamedTuple):
    """A plot that is not drawn yet."""

    name: str  # path of its file without suffix, relative to the folder of plots
    records: Sequence[Record]  # the entries that it shows
    figure: Callable[..., Any]  # takes `matplotlib.pyplot` and a layout (default: PAGE), and returns a figure
    labels: Sequence[str] = ()  # of its rows

    @property
    def kind(self) -> str:
        """Return the part of the name before `--`, e.g. `ipc`."""
        return self.name.rpartition("/")[2].partition("--")[0]

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
