"""The page with the same sets on several networks."""

from dd_bench.leaderboards.render.architectures import architecture_tables
from dd_bench.records.record import Score


def on(record, method, model, values, digest, ipc=10, **controls):
    entry = record(method, ipc, [values], model=model, set_digests=[digest], stored_bytes={"nodes": 1500})
    more = [
        Score(metric=name, value=value, set=0, network=n, seed=n)
        for name, value in controls.items()
        for n in range(len(values))
    ]
    return entry.model_copy(update={"scores": [*entry.scores, *more]})


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_table_of_several_networks_with_controls(record):
    entries = [
        on(record, "mirage", "gcn", [0.5, 0.7], "a" * 64, permuted=0.4, size_only=0.9),
        on(record, "mirage", "gin", [0.6, 0.6], "a" * 64, permuted=0.5, size_only=0.9),
        on(record, "herding", "gcn", [0.5, 0.5], "b" * 64),
        on(record, "herding", "gin", [0.4, 0.4], "c" * 64),
        on(record, "dm", "gin", [0.9, 0.9], "d" * 64),
    ]
    ((title, table),) = architecture_tables(entries)
    assert title.startswith("fashion_mnist: accuracy, ")
    head, _, size, *rows = table.splitlines()
    assert cells(head) == ["Method", "IPC", "Bytes", "Sets", "gcn", "gin"]
    assert cells(size)[0].replace("\\", "") == "size_only" and cells(size)[1:] == ["", "", "", "90.0", "90.0"]
    assert {cells(r)[0]: cells(r)[1:4] for r in rows} == {
        "herding": ["10", "1,500", "one per network"],
        "mirage": ["10", "1,500", "shared"],
    }, "dm has only one network, so it has no row"
    (mirage,) = (cells(r) for r in rows if cells(r)[0] == "mirage")
    assert mirage[4:] == ["60.0 ± 14.1 (n=2; permuted 40.0)", "60.0 ± 0.0 (n=2; permuted 50.0)"]


def test_earlier_records_of_a_cell_have_their_own_row(record):
    entries = [
        on(record, "dm", "gcn", [0.5, 0.5], "a" * 64).model_copy(update={"key": "1" * 16}),
        on(record, "dm", "gcn", [0.7, 0.7], "a" * 64).model_copy(
            update={"key": "2" * 16, "created": "2027-01-01T00:00:00Z"}
        ),
        on(record, "dm", "gin", [0.6, 0.6], "a" * 64),
    ]
    ((_, table),) = architecture_tables(entries)
    rows = [cells(line.replace("\\", "")) for line in table.splitlines()[2:]]
    assert [(row[0], row[-2][:4], row[-1][:4]) for row in rows] == [
        ("dm", "70.0", "60.0"),
        ("dm #2", "50.0", ""),
    ]


def test_no_table_for_one_network(record):
    assert architecture_tables([on(record, "dm", "gcn", [0.5], "a" * 64)]) == []


def test_one_table_per_track(record):
    pairs = [on(record, "dm", model, [0.5], "a" * 64) for model in ("gcn", "gin")]
    other = [r.model_copy(update={"selection": "best_on_val"}) for r in pairs]
    assert len(architecture_tables([*pairs, *other])) == 2
