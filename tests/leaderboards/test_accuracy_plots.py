"""Plots of accuracy against images per class, and of differences from random images."""

import pytest

from dd_bench.leaderboards.core import boards
from dd_bench.leaderboards.core.hyperparameters import Origin
from dd_bench.leaderboards.render.accuracy_plots import accuracy_plots
from dd_bench.leaderboards.render.plot_style import BLUE, GREY, VERMILION

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
    assert lines["random"] == pytest.approx([50, 70]) and lines["full"] == pytest.approx([92, 92])


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
