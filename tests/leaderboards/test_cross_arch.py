"""The cross-architecture page."""

from dd_bench.leaderboards.render.cross_arch import cross_arch_tables, difference
from dd_bench.records.record import Score


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_one_row_per_set_and_one_column_per_network(record):
    def entry(method, own, **others):
        base = record(method, 10, [own], evaluator="cross_arch")
        more = [
            Score(metric=f"accuracy:{name}", value=value, set=0, network=n, seed=n)
            for name, values in others.items()
            for n, value in enumerate(values)
        ]
        return base.model_copy(update={"scores": [*base.scores, *more]})

    dm = entry("dm", [0.8, 0.8], mlp=[0.6, 0.8], vgg11=[0.5, 0.5])
    entries = [dm, entry("random", [0.7, 0.7], mlp=[0.72, 0.72]), record("mtt", 10, [[0.9, 0.9]])]
    ((title, table),) = cross_arch_tables(entries)
    assert title.startswith("fashion_mnist: accuracy, hard v1")
    head, _, first, second = table.splitlines()
    assert cells(head) == ["Method", "IPC", "n", "convnet(width=32) (its own)", "mlp", "vgg11"]
    assert cells(first) == ["random", "10", "2", "70.0 ± 0.0", r"72.0 ± 0.0 (2.0 \[2.0, 2.0\])", ""], (
        "mtt has only its own network, so it has no row"
    )
    assert cells(second)[3:] == [
        "80.0 ± 0.0",
        r"70.0 ± 14.1 (-10.0 \[-137.1, 117.1\])",
        r"50.0 ± 0.0 (-30.0 \[-30.0, -30.0\])",
    ]
    assert difference(dm, "vgg11") == "-30.0 [-30.0, -30.0]"
