"""The front page of the site and the pages of methods: matrices, findings, links to papers."""

import re
from typing import get_args

import pytest

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.citations import Cards
from dd_bench.leaderboards.core.findings import evidence, load_findings
from dd_bench.leaderboards.core.method_info import FAMILIES, METHODS, links_of, load_links, method_info
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.core.ranking import Place
from dd_bench.leaderboards.render.place_marks import PLACE_MARKS
from dd_bench.leaderboards.render.plot_style import FAMILY_COLOURS
from dd_bench.leaderboards.website.addresses import method_url
from dd_bench.leaderboards.website.board_table import track_rows
from dd_bench.leaderboards.website.cells import settings_cell
from dd_bench.leaderboards.website.curves import plots
from dd_bench.leaderboards.website.entry_page import entry_page
from dd_bench.leaderboards.website.history import histories
from dd_bench.leaderboards.website.matrix import comparisons, main_column, matrix
from dd_bench.leaderboards.website.method_page import method_page
from dd_bench.leaderboards.website.overview import dataset_views
from dd_bench.leaderboards.website.prose import prose
from dd_bench.leaderboards.website.stylesheet import stylesheet
from dd_bench.records.record import ProtocolId

NONE = Cards({}, {})


def values(lines):
    return {line.label: [(value.mean, value.mark) for value in line.values] for line in lines}


def test_rows_of_a_matrix(board):
    """Real samples come first, then distilled sets by value at the IPC with most entries."""
    (one,) = (b for b in boards(board, []) if b.track.label_mode == "hard" and b.track.metric == "accuracy")
    groups = {g.title: g.lines for g in matrix(one).groups}
    assert one.ipcs[main_column(one)] == 1
    assert [line.label for line in groups["Real samples"]] == ["full", "random"]
    assert [line.label for line in groups["Distilled sets"]][:2] == ["dm", "dc"]
    assert values(groups["Real samples"])["random"] == [("51.0", "behind"), ("71.2", "behind")]
    assert [line.label for line in groups["Distilled sets, not ranked"]] == ["dsa", "mine & co_"]


def test_a_row_chosen_on_test_data_keeps_its_mark(record):
    chosen = {"config": {"method": {"lr_img": 9.0}, "hyperparameters": "test"}}
    found = [record("dm", 1, [[0.7, 0.71, 0.72]]), record("random", 1, [[0.5, 0.51, 0.52]])]
    found += [record("mtt", 1, [[0.9, 0.91, 0.92]], **chosen)]
    groups = {g.title: g.lines for g in matrix(boards(found, [])[0]).groups}
    assert values(groups["Distilled sets, not ranked"]) == {"mtt": [("91.0", "chosen_on_test")]}
    assert values(groups["Distilled sets"]) == {"dm": [("71.0", "best")]}


@pytest.mark.parametrize(("later", "hidden"), [(0.5, 1), (0.9, 0)])
def test_other_settings_are_hidden_unless_they_are_best(record, later, hidden):
    first = record("dm", 1, [[0.7, 0.71]], created="2026-01-01T00:00:00Z", config={"method": {"lr_img": 1.0}})
    other = record("dm", 1, [[later, later + 0.01]], config={"method": {"lr_img": 2.0}})
    assert matrix(boards([first, other], [])[0]).variants == hidden


def test_rows_of_a_method_show_their_settings(record):
    """In the matrix, on the page of the board and on that of the method."""
    found = [
        record("dm", 1, [[0.7, 0.71]], created="2026-01-01", config={"method": {"lr_img": 1.0}}),
        record("dm", 1, [[0.9, 0.91]], created="2026-01-02", config={"method": {"lr_img": 2.0}}),
        record("dc", 1, [[0.6, 0.61]]),
    ]
    (board,) = boards(found, [])
    texts = {"dc": "", "dm": "lr_img=1.0", "dm #2": "lr_img=2.0"}
    assert {line.label: line.settings for line in matrix(board).lines} == texts
    assert [f"entry {found[1].digest[:16]}" in line.notes for line in matrix(board).lines] == [
        True,
        False,
        False,
    ]
    rows = [row["cells"][0] for row in track_rows(board, {}, {})["rows"]]
    assert {cell["text"]: cell.get("sub", "") for cell in rows} == texts
    assert "with method.lr_img=2.0" in rows[0]["title"]
    of_method = method_page("dm", ["dm"], [board], {}, NONE)["rows"]
    at = [column["id"] for column in of_method["columns"]].index("protocol")
    assert [row["cells"][at]["sub"] for row in of_method["rows"]] == ["lr_img=1.0", "lr_img=2.0"]
    facts = dict(entry_page(found[1], board, {}, NONE, None)["facts"])
    assert facts["Row of its board"] == "dm #2 (lr_img=2.0)"


def test_curves(record):
    """Points are at the IPCs on a logarithmic axis, and a higher value is higher on the page."""
    found = [
        record(m, ipc, [[v, v + 0.02]])
        for m, ipc, v in (("dm", 1, 0.5), ("dm", 10, 0.7), ("random", 10, 0.6))
    ]
    by_ipc, by_bits = plots(matrix(boards(found, [])[0]))
    (dm,) = (curve for curve in by_ipc.curves if curve.name == "dm")
    points = [tuple(map(float, point.split(","))) for point in dm.points.split()]
    assert [x for x, _ in points] == [tick.at for tick in by_ipc.x_ticks] and points[0][1] > points[1][1]
    assert dm.tip == "dm (matching): 51.0, 71.0"
    assert [tick.text for tick in by_bits.x_ticks] == ["100 k", "1 M", "10 M"]


def test_values_over_time(record):
    """The line is the best ranked entry so far. An entry chosen on test data is a hollow marker and not on the line."""
    chosen = {"method": {"lr_img": 9.0}, "hyperparameters": "test"}
    found = [
        record("dm", 1, [[0.6, 0.62]], created="2026-01-01T00:00:00Z"),
        record("mtt", 1, [[0.9, 0.92]], created="2026-01-02T00:00:00Z", config=chosen),
        record("dc", 1, [[0.5, 0.52]], created="2026-01-03T00:00:00Z"),
        record("dsa", 1, [[0.7, 0.72]], created="2026-01-05T00:00:00Z"),
    ]
    by_paper, by_date = histories(boards(found, [])[0])
    lines = [[curve.tip for curve in plot.curves if curve.style == "so-far"] for plot in (by_paper, by_date)]
    # dc, dsa and dm were published in this order: dsa is the best from its publication on
    assert lines == [
        ["IPC 1, best so far: 51.0, 51.0, 71.0, 71.0"],
        ["IPC 1, best so far: 61.0, 61.0, 71.0, 71.0"],
    ]
    assert [curve.style for curve in by_date.curves if curve.name == "mtt"] == ["trajectory hollow"]
    assert by_date.x_ticks[0].text == "01 Jan" and by_date.x_label == "day of the entry, 2026"


def test_the_board_with_most_comparisons_is_first(record):
    other = {"protocol": ProtocolId(name="x", version=1)}
    found = [record(f"m{i}", 1, [[0.5 + i / 10, 0.51 + i / 10]]) for i in range(3)]
    found += [record("m1", ipc, [[0.5, 0.52]], **other) for ipc in (1, 10, 50)]
    (view,) = dataset_views(boards(found, []), NONE, front=True)
    assert [one.protocol for one in view.boards] == ["hard v1", "x v1"]
    assert view.choices["protocol"] == ["hard v1", "x v1"] and comparisons(view.boards[0].matrix.board) == 3


def test_of_networks_with_equally_many_rows_the_most_used_is_first(record):
    graph = {"evaluator": "graph", "main_metric": "auc"}
    found = [
        record("dm", 1, [[0.5, 0.52]], dataset=d, model=m, **graph)
        for m in ("gat", "gcn")
        for d in ("MUTAG", "NCI1")
    ]
    found.append(record("dm", 5, [[0.5, 0.52]], dataset="NCI1", model="gcn(layers=2)", **graph))
    for view in dataset_views(boards(found, []), NONE, front=True):
        assert view.boards[0].network == "gcn"


def test_colours_of_families_have_contrast():
    """Markers have a contrast of 3:1 on the page, as WCAG 2.1 (1.4.11) requires."""

    def luminance(colour):
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    papers = re.findall("--paper: (#[0-9a-f]{6})", stylesheet())
    assert len(papers) == 2 and set(FAMILY_COLOURS) == set(FAMILIES)
    for paper, colours in zip(papers, zip(*FAMILY_COLOURS.values(), strict=True), strict=True):
        assert all(contrast(colour, paper) >= 3 for colour in colours), paper


def test_every_place_has_a_mark():
    assert set(PLACE_MARKS) == set(get_args(Place))
    assert '.tied::after { content: " ≈"; }' in stylesheet()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nas(sample=30, space.depth=[1, 2, 3], steps=2)", "nas (3 settings)"),
        ("mtt-1000(recipe.epochs=301, recipe.milestones=[152]) v1", "mtt-1000 v1 (2 settings)"),
        ("timm(name=resnet101, options.zero_init_last=False)", "timm resnet101 (1 setting)"),
        ("torchvision(name=shufflenet_v2_x1_0)", "torchvision shufflenet_v2_x1_0"),
    ],
)
def test_long_names_in_the_table_of_boards(name, text):
    assert settings_cell(name) == {"text": text, "more": name} and settings_cell("dc-300 v1") == "dc-300 v1"


def test_a_finding_is_shown_only_if_its_check_holds(record):
    first = load_findings()[:1]
    dc300 = {
        "protocol": ProtocolId(name="dc-300", version=1),
        "config": {"method": {}, "model": {"width": 32}},
    }
    random = record("random", 1, [[0.50, 0.52, 0.51]], **dc300)
    (one,) = evidence(first, [random, record("dm", 1, [[0.70, 0.72, 0.71]], **dc300)])
    assert "71.0 % with DM's images and 51.0 %" in one.text and {r.method for r in one.records} == {
        "dm",
        "random",
    }
    assert not list(evidence(first, [random, record("dm", 1, [[0.40, 0.42, 0.41]], **dc300)]))
    assert not list(evidence(first, [random]))


def test_families_and_links_of_methods():
    assert {links_of(name).family for name in ("mtt", "ftd #2")} == {"trajectory"}
    assert links_of("datadam_released") == links_of("datadam") and links_of("unknown_x").family == "other"
    published = {cell.method for one in load_published(METHODS.parent) for cell in one.cells}
    for name in load_links():  # a method is implemented here, or has published numbers
        assert method_info(name).title or any(method.startswith(name) for method in published), name
    assert links_of("fadrm_plus").venue == "NeurIPS 2025" and links_of("idc_1").family == "matching"
    assert method_info("dm").description.startswith("Each iteration samples a random network")


def test_names_of_pages_are_unique():
    assert method_url("dm") == "methods/dm.html"
    names = [method_url(name) for name in ("a b", "a_b", "../x", "x" * 200)]
    assert len(set(names)) == 4 and all(n.count("/") == 1 and ".." not in n and len(n) < 90 for n in names)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One `a<b`\nline.", "<p>One <code>a&lt;b</code> line.</p>"),
        ("- one\n  more\n- two", "<ul><li>one more</li><li>two</li></ul>"),
        ("Text:\n\n    x = 1", "<p>Text:</p><pre><code>x = 1</code></pre>"),
    ],
)
def test_docstrings_as_html(text, html):
    assert prose(text) == html
