"""Heat maps of scores: methods by networks, from entries of `cross_arch` and from boards that differ in the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from dd_bench.records.record import Record

from ..core.entries import ACCURACY, Track
from ..core.row_labels import side_by_side
from ..core.selectors import MAIN_EVALUATORS
from .cross_arch import cross_arch_groups, other_networks
from .formatting import number, with_marks
from .markup import PLAIN
from .plot_style import PAGE, Layout, Plot


class Grid(NamedTuple):
    """Scores by row and network; None if there is no entry."""

    title: str
    metric: str
    networks: list[str]
    rows: dict[str, list[float | None]]


def heat_maps(entries: Sequence[Record]) -> Iterator[Plot]:
    """Yield one plot for each track of `cross_arch`, and for each group of tracks that differ only in the network.

    Their names are `<dataset>/cross_arch--<board>` and `<dataset>/networks--<board without network>`.
    """
    for track, group, names in cross_arch_groups(entries):
        grid = _cross_arch_grid(track, group, names)
        name = f"{track.folder}/cross_arch--{track.name}"
        yield Plot(name, group, partial(_plot, grid=grid), list(grid.rows))
    for track, group in _groups(entries):
        grid = _network_grid(track, group)
        if len(grid.networks) > 1 and len(grid.rows) > 1:
            name = f"{track.folder}/networks--{track._replace(model='all').name}"
            yield Plot(name, group, partial(_plot, grid=grid), list(grid.rows))


def _groups(entries: Sequence[Record]) -> Iterator[tuple[Track, list[Record]]]:
    groups: dict[Track, list[Record]] = defaultdict(list)
    for record in entries:
        if record.status == "done" and record.evaluator.partition("(")[0] in MAIN_EVALUATORS:
            groups[Track.of(record)._replace(model="")].append(record)
    yield from sorted(groups.items())


def _cross_arch_grid(track: Track, group: Sequence[Record], names: list[str]) -> Grid:
    rows: dict[str, list[float | None]] = {}
    for ipc, label, cells in side_by_side(group, lambda _: ""):
        record = cells[""]
        has = other_networks(record)
        others = [record.summary(f"{track.metric}:{n}").mean if n in has else None for n in names]
        rows[f"{with_marks(label, [record])}, IPC {ipc}"] = [record.summary().mean, *others]
    return Grid(track.title, track.metric, [track.model, *names], rows)


def _network_grid(track: Track, group: Sequence[Record]) -> Grid:
    """Return the rows that have a score of at least two networks."""
    models = sorted({r.model for r in group})
    rows: dict[str, list[float | None]] = {}
    for ipc, label, cells in side_by_side(group, lambda r: r.model, columns=2):
        row = [cells[m].summary().mean if m in cells else None for m in models]
        rows[f"{with_marks(label, cells.values())}, IPC {ipc}"] = row
    has = [i for i in range(len(models)) if any(row[i] is not None for row in rows.values())]
    rows = {label: [row[i] for i in has] for label, row in rows.items()}
    return Grid(track.title, track.metric, [models[i] for i in has], rows)


def _plot(plt: Any, layout: Layout = PAGE, *, grid: Grid) -> Any:
    """Draw scores as colours of `cividis`, whose lightness increases with the score, with the number in each cell."""
    rows, scale = grid.rows, 100 if grid.metric == ACCURACY else 1
    width = 2.5 + 0.9 * len(grid.networks)
    height = 1.3 + 0.16 * len(rows)
    figure, (axis,) = layout.panels(plt, 1, (width, 1.4 + 0.26 * len(rows)), height)
    values = [[float("nan") if x is None else scale * x for x in row] for row in rows.values()]
    image = axis.imshow(values, cmap="cividis", aspect="auto")
    known = [x for row in values for x in row if x == x]
    dark = min(known) + 0.42 * (max(known) - min(known))  # below, white text has more contrast than black
    for y, row in enumerate(rows.values()):
        for x, value in enumerate(row):
            if value is not None:
                text = number([value], grid.metric, 1 if grid.metric == ACCURACY else 2)
                colour = "white" if scale * value < dark else "black"
                axis.text(x, y, text, ha="center", va="center", color=colour, fontsize="small")
    labels = [PLAIN.escape(name) for name in grid.networks]
    axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), [PLAIN.escape(label) for label in rows])
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, fraction=0.06, pad=0.02)
    bar.set_label(f"test {grid.metric}, %" if grid.metric == ACCURACY else grid.metric)
    bar.outline.set_visible(False)
    layout.title(axis, PLAIN.escape(grid.title))
    return figure
