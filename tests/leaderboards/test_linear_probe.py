"""The page of linear probes: rows by method and backbone of the set, columns by probed backbone, and tracks."""

from pathlib import Path

import pytest

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.commands import run_command
from dd_bench.leaderboards.core.entries import Track, probed_backbone
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.render.linear_probe import linear_probe_tables
from dd_bench.leaderboards.render.markdown_blocks import embedded, named_tables
from dd_bench.records.config_diff import shipped_config
from dd_bench.records.record import ProtocolId, TeacherId

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "published"


@pytest.fixture
def probe(record):
    """Function that returns a record of a probe with the backbone of the set and the probed one."""

    def make(method, values, made_with, probed, **changes):
        config = {
            "method": shipped_config("method", method),
            "teachers": {probed: shipped_config("teacher", probed)},
        }
        teachers = [TeacherId(name=made_with, digest="ab" * 32)] if made_with else []
        fields = {
            "dataset": "digits-classes5-9", "evaluator": "linear_probe", "config": config, "teachers": teachers,
            "protocol": ProtocolId(name="ridge", version=1), "model": "convnet",
        }  # fmt: skip
        return record(method, 1, [values], **fields | changes)

    return make


def rows(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_matrix_of_backbones(probe):
    entries = [
        probe("lgm", [0.9], "backbone_w32", "backbone_w32"),
        probe("lgm", [0.7], "backbone_w32", "backbone_d2_w32"),
        probe("lgm", [0.8], "backbone_d2_w32", "backbone_d2_w32"),
        probe("random", [0.5, 0.6], "", "backbone_w32"),
        probe("centroid", [0.65], "backbone_w32", "backbone_w32"),
    ]
    ((title, table),) = linear_probe_tables(entries)
    assert title == "digits-classes5-9: accuracy, ridge v1, last, hard labels"
    head, _, *body = rows(table)
    assert [cell.replace("\\", "") for cell in head[4:]] == [
        "Probed: backbone_d2_w32",
        "Probed: backbone_w32",
    ]
    text = [[cell.replace("\\", "") for cell in row] for row in body]
    assert text == [
        ["random", "–", "1", "2", "", "55.0 ± 7.1"],
        ["centroid", "backbone_w32", "1", "1", "", "65.0"],
        ["lgm", "backbone_d2_w32", "1", "1", "80.0", ""],
        ["lgm", "backbone_w32", "1", "1", "70.0", "90.0"],
    ]


def test_probed_backbone_is_the_network_of_the_track(probe, record):
    own, other = (probe("lgm", [0.9], "backbone_w32", name) for name in ("backbone_w32", "backbone_d2_w32"))
    assert Track.of(own).model == "backbone_w32" and Track.of(other).model == "backbone_d2_w32"
    changed = dict(own.config["teachers"]["backbone_w32"], epoch=4, keep=[1])
    assert (
        probed_backbone(
            probe(
                "lgm", [0.9], "backbone_w32", "backbone_w32", config={"teachers": {"backbone_w32": changed}}
            )
        )
        == "backbone_w32(epoch=4)"
    )
    assert Track.of(record("dm", 1, [[0.5]])).model == "convnet(width=32)"
    assert len(boards([own, other], [])) == 2
    assert "teacher=backbone_d2_w32" in run_command(probe("random", [0.9], "", "backbone_d2_w32"))


def test_backbones_of_sets_are_different_rows(probe):
    made = [
        probe("lgm", [v], name, "backbone_w32")
        for v, name in ((0.9, "backbone_w32"), (0.8, "backbone_d2_w32"))
    ]
    (board,) = boards(made, [])
    assert list(board.rows) == ["lgm", "lgm #2"]
    (note,) = board.notes["lgm #2"].values()
    assert "made with=backbone_" in note


def test_page_without_entries():
    assert linear_probe_tables([]) == []
    text, _ = embedded("<!-- table linear_probe -->\n<!-- table end -->", named_tables([]))
    assert "There are no entries yet." in text


def test_published_numbers_are_secondary():
    found = [s for s in load_published(PUBLISHED) if s.model.startswith("backbone_")]
    assert len(found) == 4 and all(not cell.verified for s in found for cell in s.cells)
