"""Plots of accuracy against images per class, and of differences from random images."""

import pytest

from dd_bench.leaderboards.core import boards
from dd_bench.leaderboards.core.board_selection import BoardFilter
from dd_bench.leaderboards.core.hyperparameters import Origin
from dd_bench.leaderboards.render.accuracy_plots import accuracy_plots
from dd_bench.leaderboards.render.heat_maps import heat_maps
from dd_bench.leaderboards.render.plot_style import BLUE, COLUMN, GREY, VERMILION
from dd_bench.leaderboards.render.plots import Selection, draw

FIVE = [-0.004, -0.002, 0.0, 0.002, 0.004]


@pytest.fixture
def entries(record):
    """Random images, three methods at two IPCs, a variant of one of them, and the whole training set."""
    means = {"random": (0.5, 0.7), "dc": (0.6, 0.71), "dm": (0.65, 0.6), "dsa": (0.7, 0.703)}
    found = [
        record(method, ipc, [[mean + (x if method == "random" else -x) for x in FIVE]])
        for method, at in means.items()
        for ipc, mean in zip((1, 10), at, strict=True)
    ]
    later = {"created": "2026-02-02T03:04:05Z", "config": {"method": {"name": "dm", "lr_img": 5.0}}}
    variant = record("dm", 1, [[0.9 + x for x in FIVE]], **later)
    return [*found, variant, record("full", 1, [[0.92 + x for x in FIVE]])]


@pytest.fixture
def figures(entries):
    plt = pytest.importorskip("matplotlib.pyplot")
    yield [plot.figure(plt) for plot in accuracy_plots(entries)]
    plt.close("all")


def test_rows_of_accuracy_against_ipc(figures):
    (axis,) = figures[0].axes
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["full", "random", "dc", "dm", "dsa"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "10"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert lines["full"] == pytest.approx([92, 92])


def test_random_is_a_horizontal_line_across_the_markers_of_an_ipc(figures):
    """A marker is above the line exactly if its mean is larger."""
    (axis,) = figures[0].axes
    (random,) = (c for c in axis.collections if c.get_label() == "random")
    segments = [(left, right, y) for (left, y), (right, other) in random.get_segments() if y == other]
    assert [y for _, _, y in segments] == pytest.approx([50, 70])
    for marks in axis.containers:
        points = zip(marks.lines[0].get_xdata(), marks.lines[0].get_ydata(), strict=True)
        for (x, _), (left, right, _) in zip(points, segments, strict=True):
            assert left < x < right, marks.get_label()


def test_differences_from_random(figures):
    """At IPC 10 the interval of dsa contains 0, dc is above random and dm below it."""
    one, ten = figures[1].axes
    assert [t.get_text() for t in one.get_yticklabels()] == ["dc", "dm", "dsa"], (
        "the largest at IPC 1 is on top"
    )
    assert [c.lines[0].get_xdata()[0] for c in ten.containers] == pytest.approx([1, -10, 0.3])
    assert [c.lines[0].get_color() for c in ten.containers] == [BLUE, VERMILION, GREY]


def test_boards_with_few_methods_have_no_plots(entries):
    assert len(list(accuracy_plots(entries))) == 2
    assert not list(accuracy_plots([r for r in entries if r.method != "dsa"]))
    at_one = list(accuracy_plots([r for r in entries if r.ipc == 1]))
    assert [p.name.partition("--")[0] for p in at_one] == ["fashion_mnist/forest"]
    assert [
        p.name.partition("--")[0] for p in accuracy_plots([r for r in entries if r.method != "random"])
    ] == ["fashion_mnist/ipc"]


def test_description_has_the_shown_entries(entries):
    """The variant of dm is not shown."""
    ipc, _ = accuracy_plots(entries)
    shown = [r for r in entries if not r.created.startswith("2026-02")]
    digests = " ".join(sorted(r.digest[:16] for r in shown))
    assert ipc.description == f"Rows: full, random, dc, dm, dsa. Entries: {digests}"


def test_choices_on_test_data_are_marked(entries, monkeypatch):
    """DM has the mark of the tables, also in the description, so that the file is drawn again."""
    test = Origin("test", "four values were compared on test data")
    paper = Origin("paper", "")
    monkeypatch.setattr(
        boards, "origins", lambda records: {r.key: test if r.method == "dm" else paper for r in records}
    )
    ipc, _ = accuracy_plots(entries)
    assert ipc.labels == ["full", "random", "dc", "dm [T]", "dsa"]


@pytest.mark.parametrize("evaluator, noun", [("accuracy", "images"), ("graph", "graphs"), ("node", "nodes")])
def test_axis_names_the_samples(entries, evaluator, noun):
    plt = pytest.importorskip("matplotlib.pyplot")
    ipc, *_ = accuracy_plots([r.model_copy(update={"evaluator": evaluator}) for r in entries])
    figure = ipc.figure(plt, COLUMN)
    assert figure.axes[0].get_xlabel() == f"{noun} per class"
    plt.close(figure)


def test_differences_from_another_method(entries):
    """Both entries have one set with networks of the same seeds, so the differences are paired."""
    plt = pytest.importorskip("matplotlib.pyplot")
    _, forest = accuracy_plots(entries, reference="dm")
    figure = forest.figure(plt, COLUMN)
    assert figure._supxlabel.get_text() == (
        "difference from dm, percentage points\n(95 % intervals, paired by seed)"
    )
    assert figure.get_figwidth() == pytest.approx(3.3)
    one = figure.axes[0]
    assert [t.get_text() for t in one.get_yticklabels()] == ["random", "dc", "dsa"]
    assert [c.lines[0].get_xdata()[0] for c in one.containers] == pytest.approx([-15, -5, 5])
    plt.close(figure)


def test_selected_plots(entries):
    selection = Selection(methods=["random", "dm"], kinds=["ipc", "cost"])
    assert [p.kind for p in selection.plots(entries)] == ["cost", "ipc"]
    shown = {r.method for plot in selection.plots(entries) for r in plot.records}
    assert shown == {"random", "dm"}, "two methods suffice if they are selected"
    with pytest.raises(ValueError, match="Did you mean forest"):
        list(Selection(kinds=["forrest"]).plots(entries))
    with pytest.raises(ValueError, match="Did you mean dm"):
        list(Selection(reference="dmm").plots(entries))


def test_heat_map_of_networks(record):
    """Rows with a single network, and networks without a row, are left out."""
    other = {"model": "mlp"}
    found = [
        *(record(m, 1, [[x, x]]) for m, x in (("random", 0.5), ("dc", 0.6), ("dm", 0.7))),
        *(record(m, 1, [[x, x]], **other) for m, x in (("random", 0.4), ("dm", 0.55))),
        record("dsa", 1, [[0.8, 0.8]], model="vgg11"),
    ]
    (plot,) = heat_maps(found)
    assert plot.kind == "networks" and list(plot.labels) == ["random, IPC 1", "dm, IPC 1"]
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plot.figure(plt)
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["convnet(width=32)", "mlp"]
    assert [t.get_text() for t in axis.texts] == ["50.0", "40.0", "70.0", "55.0"]
    plt.close(figure)


def test_a_kind_selects_its_evaluator(record):
    """Kinds of other evaluators need no --evaluator."""
    scores = [[0.5, 0.51], [0.6, 0.61]]
    found = [record("dm", 1, scores[:1]), record("dc", 1, scores[1:])]
    for method, r in (("dm", found[0]), ("dc", found[1])):
        values = [
            s.model_copy(update={"metric": f"accuracy:{net}"}) for s in r.scores for net in ("mlp", "vgg11")
        ]
        found.append(record(method, 1, [], scores=[*r.scores, *values], evaluator="cross_arch"))
    selection = Selection(BoardFilter(dataset=["fashion_mnist"]), kinds=["cross_arch"])
    assert [p.kind for p in selection.plots(found)] == ["cross_arch"]


def test_a_long_legend_makes_a_figure_of_a_paper_higher(record):
    """The panel keeps its height."""
    plt = pytest.importorskip("matplotlib.pyplot")
    heights = []
    for count in (4, 24):
        found = [record(f"m{i}", ipc, [[0.5, 0.6]]) for i in range(count) for ipc in (1, 10)]
        plot = next(p for p in accuracy_plots(found) if p.kind == "ipc")
        figure = plot.figure(plt, COLUMN)
        figure.canvas.draw()
        heights.append(figure.axes[0].get_window_extent().height)
        plt.close(figure)
    assert heights[1] == pytest.approx(heights[0], rel=0.15)


def test_files_of_a_paper(entries, put, tmp_path):
    """A figure of one column is 3.3 inches wide, in all formats; the same figure is drawn with the same bytes."""
    pytest.importorskip("matplotlib.pyplot")
    selection, formats = Selection(kinds=["ipc"]), ("svg", "pdf", "png")
    folder = put(*entries)
    written = draw(folder, tmp_path / "out", selection=selection, formats=formats, layout=COLUMN)
    assert [p.suffix for p in written] == [".svg", ".pdf", ".png"]
    svg, pdf, png = (p.read_bytes() for p in written)
    assert b'width="237.6pt"' in svg and b"/MediaBox [ 0 0 237.6 " in pdf
    assert int.from_bytes(png[16:20], "big") == 990  # 300 pixels per inch
    again = draw(folder, tmp_path / "again", selection=selection, formats=("pdf",), layout=COLUMN)
    assert [p.read_bytes() for p in again] == [pdf]
