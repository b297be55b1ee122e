"""The table of distilled sets and selections of real images at equal IPC."""

from dd_bench.leaderboards.render.coresets import coreset_table
from dd_bench.records.config_diff import STORED
from dd_bench.records.record import ProtocolId


def test_best_sets_their_difference_and_the_values_of_a_row(record):
    def entry(method, ipc, mean, n=5, **values):
        own = {"protocol": ProtocolId(name="dc-300", version=1), "config": {"method": values}}
        return record(method, ipc, [[mean + 0.01 * (i - (n - 1) / 2) for i in range(n)]], **own)

    chosen = {"protocol": ProtocolId(name="dc-300", version=1)}
    stored = {"config": {"method": {}, STORED: {"bits": 8, "precision": "8 bits"}}}
    entries = [
        entry("random", 1, 0.3, n=3),
        entry("kmeans", 1, 0.5, teacher={"epochs": 6}),
        entry("kmeans", 1, 0.4, teacher={"epochs": 30}),
        entry("entropy", 1, 0.6, pick="easy"),
        entry("entropy", 1, 0.2, pick="hard"),
        entry("dm", 1, 0.65),
        entry("dm", 1, 0.7, iterations=9),
        entry("dm", 10, 0.8),
        record("kmeans", 1, [[0.9, 0.91]], **chosen, **stored),
        record("mtt", 1, [[0.8, 0.81]], **chosen, config={"method": {}, "hyperparameters": "test"}),
    ]
    table = coreset_table(entries, "fashion_mnist")
    rows = {
        c[1].strip(): [x.strip() for x in c[2:5]] for c in (r.split("|") for r in table.splitlines()) if c[1:]
    }
    assert rows["`dm`"] == ["**70.0 ± 1.6**", "**80.0 ± 1.6**", ""], "the entry with the most iterations"
    assert rows["`mtt`"][0] == "80.5 ± 0.7 (n=2) \\[T\\]", "not ranked, so not bold"
    assert rows["`random`"][0] == "30.0 ± 1.0 (n=3)" and "`kmeans`" not in rows
    assert [rows[f"`kmeans`, teacher.epochs {n}"][0] for n in (6, 30)] == ["50.0 ± 1.6", "40.0 ± 1.6"]
    assert rows["`entropy`, pick easy<br>medium<br>hard"][0] == "**60.0 ± 1.6**<br>–<br>20.0 ± 1.6"
    assert rows["*Difference of the two in bold*"] == ["10.0 \\[10.0, 10.0\\]", "", ""]
    assert "T" in table.splitlines()[-1] and coreset_table(entries, "digits") == ""
