"""Which records boards and the site show."""

from dd_bench.leaderboards.core.boards import boards, compared_board, on_boards
from dd_bench.leaderboards.website.pages import Pages

from .conftest import make_record


def test_boards_show_the_evaluation_with_the_most_networks_and_compared_ipcs():
    again = {"set_digests": ["ab"], "config": {"method": {}, "evaluator": {}}}
    records = [
        make_record("dm", 1, [[0.6, 0.6]], **again),
        make_record("dm", 1, [[0.6, 0.6, 0.7]], **again),
        make_record("kmeans", 1, [[0.5, 0.5]]),
        make_record("kmeans", 4, [[0.55, 0.6]]),
    ]
    (board,) = boards(records, [])
    assert [len(r.scores) for r in board.records if r.method == "dm"] == [3] and board.ipcs == [1, 4]
    assert compared_board(board).ipcs == [1] and set(compared_board(board).rows) == {"dm", "kmeans"}


def test_the_site_shows_only_evaluations_of_its_boards(tmp_path):
    config = {"method": {}, "evaluator": {}}
    records = [
        make_record("dm", 1, [values], set_digests=["ab"], config=config)
        for values in ([0.6, 0.6], [0.6, 0.6, 0.7])
    ]
    pages = Pages(tmp_path, records, [], tmp_path)
    shown = {r.key for board in pages.boards for r in board.records}
    assert {p.record.key for found in pages.costs.values() for p in found} == shown == {records[1].key}


def test_a_run_with_several_sets_replaces_runs_with_one_set_and_the_same_settings():
    def run(digests, values=(0.5, 0.6), created="2026-01-01", **method):
        return make_record(
            "kmeans", 10, [list(values)] * len(digests), set_digests=digests, created=created,
            config={"method": {"restarts": 3} | method},
        )  # fmt: skip

    one, five, ablation, other = (
        run(["a"]),
        run(["b", "c"], network="per_set", created="2026-01-02"),
        run(["d"], restarts=1),
        make_record("dm", 10, [[0.7]], set_digests=["e"]),
    )
    assert on_boards([one, five, ablation, other]) == [five, ablation, other]
    (board,) = boards([one, five, ablation, other], [])
    assert {label: [c.record for c in row] for label, row in board.rows.items() if label != "dm"} == {
        "kmeans": [five],
        "kmeans #2": [ablation],
    }
    diverged = five.model_copy(update={"status": "diverged", "scores": [], "reason": "not finite"})
    assert on_boards([one, diverged]) == [one, diverged], "a run without a result replaces nothing"
