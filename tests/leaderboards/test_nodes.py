"""The table of a node dataset on its results page."""

from dd_bench.leaderboards.core.published import Published, PublishedSet
from dd_bench.leaderboards.render.formatting import interval
from dd_bench.leaderboards.render.nodes import node_table
from dd_bench.records.record import ProtocolId, Score

from .conftest import make_record


def node_record(method, ipc, sets, size, labelled, model="node_gcn", controls=(), **changes):
    record = make_record(
        method, ipc, sets, dataset="cora", model=model, evaluator="node",
        protocol=ProtocolId(name="node-last", version=1),
        config={"method": {}, "model": {"hidden": 64 if "64" in model else 256}},
        stored_bytes={"features": size}, sizes={"labelled nodes": labelled, "nodes": labelled}, **changes,
    )  # fmt: skip
    extra = [Score(metric=m, value=v, set=s, network=0, seed=0) for m, v, s in controls]
    return record.model_copy(update={"scores": [*record.scores, *extra]})


PUBLISHED = [
    PublishedSet(
        dataset="cora",
        model="node_gcn",
        unit="percent",
        cells=[
            Published(method=m, ipc=5, mean=mean, std=None, protocol="p", source="s", verified=True)
            for m, mean in (("gcdm", 79.7), ("random", 63.6))
        ],
    )
]


def cells(table):
    return {
        row.split("|")[1].strip(): [c.strip() for c in row.split("|")[2:-1]] for row in table.splitlines()[2:]
    }


def test_rows_have_bytes_published_numbers_and_controls():
    records = [
        node_record("gcdm", 5, [[0.76, 0.78]], 2000, 35, controls=[("mlp", 0.6, 0), ("best_val", 0.8, 0)]),
        node_record("sfgc", 5, [[0.5, 0.6]], 900, 35, "node_gcn(hidden=64)", label_mode="soft"),
        node_record("random", 10, [[0.6], [0.7]], 90, 70, controls=[("no_edges", 0.65, 1)]),
        node_record("full", 1, [[0.8, 0.8]], 1000, 140),
        node_record("gcdm", 5, [[0.9, 0.9]], 1, 35, "node_gat"),
    ]
    table = node_table(records, PUBLISHED, "cora")
    rows = cells(table)
    assert list(rows) == ["full", "gcdm", "sfgc, width 64, soft labels", "random"]
    assert rows["gcdm"][:2] == ["35", "2,000 (2.0 × the graph)"] and rows["gcdm"][3:6] == ["79.7", "80.0", ""]
    assert rows["gcdm"][6] == "60.0"
    assert rows["random"][1] == "90" and rows["random"][3] == "", "the published number is of another IPC"
    assert rows["random"][5] == "", "measured on one of two sets"
    assert node_table(records, PUBLISHED, "citeseer") == ""
    assert interval(records[2], "no_edges") == "65.0"
