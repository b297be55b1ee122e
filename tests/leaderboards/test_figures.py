"""Values of records as text."""

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.render.formatting import all_metrics_table, interval, interval_bounds
from dd_bench.records.record import Score


def _with(record, method, metrics):
    scores = [
        Score(metric=m, value=v, set=0, network=i, seed=i)
        for m, vs in metrics.items()
        for i, v in enumerate(vs)
    ]
    return record(method, 1, [], scores=scores)


def test_other_metrics_have_intervals(record):
    """Half width: t(0.975, 1) = 12.7062 times the standard error of two values, clipped to [0, 1]."""
    two = [_with(record, m, {"accuracy": [0.5, 0.502], "random": [0.4, 0.9]}) for m in ("dm", "dc")]
    (board,) = boards(two, [])
    header, _, *rows = (line.split("|")[1:-1] for line in all_metrics_table(board).splitlines())
    assert [x.strip() for x in header] == ["Method", "IPC", "Entry", "n", "accuracy", "random"]
    assert [x.strip() for x in rows[0]][3:] == ["2", "50.1 (48.8–51.4)", "65.0 (0.0–100.0)"]


def test_many_metrics_are_rows(record):
    steps = {f"step {s}": [0.5] for s in (10, 9, 1)}
    (board,) = boards([_with(record, "dm", {"accuracy": [0.5], **steps})], [])
    names = [line.split("|")[1].strip() for line in all_metrics_table(board).splitlines()]
    assert names[0] == "Method" and set(names.pop(1)) == {"-"}
    assert names[1:] == ["IPC", "Entry", "n", "accuracy", "step 1", "step 9", "step 10"]


def test_no_table_for_the_main_metric_alone(record):
    (board,) = boards([record("dm", 1, [[0.5, 0.6]])], [])
    assert all_metrics_table(board) == ""


def test_a_single_value_has_the_interval_of_its_evaluator(record):
    found = {"spearman": [0.8], "spearman_low": [0.6], "spearman_high": [0.9], "other": [0.5]}
    scores = [Score(metric=m, value=v[0], set=0, network=0, seed=0) for m, v in found.items()]
    one = record("dm", 1, [], scores=scores, main_metric="spearman")
    assert (
        interval_bounds(one, "spearman") == (0.6, 0.9)
        and interval(one, "spearman") == "0.8000 (0.6000–0.9000)"
    )
    assert interval_bounds(one, "other") is None and interval(one, "other") == "0.5000"
    more = [s.model_copy(update={"network": 1}) for s in scores]
    low, high = interval_bounds(one.model_copy(update={"scores": scores + more}), "spearman")
    assert low == high == 0.8, "two values have Student's t interval"
