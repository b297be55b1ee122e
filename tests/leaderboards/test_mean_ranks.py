"""Mean ranks over datasets: which methods and cells enter, the ranks, and their intervals."""

import numpy as np
import pytest
from scipy import stats

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.mean_ranks import Cell, largest_block, rank_summaries
from dd_bench.leaderboards.website.ranks_page import rank_parts

FIVE = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


def entries(record, values, **changes):
    """Records from `{(dataset, ipc): {method: mean}}`."""
    return [
        record(method, ipc, [list(mean + FIVE)], dataset=dataset, **changes)
        for (dataset, ipc), means in values.items()
        for method, mean in means.items()
    ]


def test_the_largest_complete_table():
    """Four methods in two cells have more entries than three methods in two cells, and fewer than three in three."""
    a, b, c = Cell("x", "net", 1), Cell("y", "net", 1), Cell("z", "net", 1)
    four, three = frozenset("pqrs"), frozenset("pqr")
    assert largest_block({a: four, b: four}) == (["p", "q", "r", "s"], [a, b])
    assert largest_block({a: four, b: four, c: three}) == (["p", "q", "r"], [a, b, c])
    assert largest_block({a: four, b: four, c: frozenset("pq")}) == (["p", "q", "r", "s"], [a, b])
    assert largest_block({a: four, a._replace(ipc=10): four}) is None  # one dataset
    assert largest_block({a: frozenset("pq"), b: frozenset("pq")}) is None


def test_mean_ranks(record):
    """Each dataset has the same weight, and each cell its own ranks."""
    found = entries(
        record,
        {
            ("a", 1): {"dm": 0.9, "dc": 0.8, "random": 0.1},
            ("a", 10): {"dm": 0.7, "dc": 0.8, "random": 0.1},
            ("b", 1): {"dm": 0.1, "dc": 0.8, "random": 0.5},
        },
    )
    (summary,) = rank_summaries(boards(found, []))
    mean = {rank.method: rank.mean for rank in summary.ranks}
    assert mean == {"dc": (1.5 + 1) / 2, "dm": (1.5 + 3) / 2, "random": (3 + 2) / 2}
    assert summary.ranks[0].by_dataset == {"a": 1.5, "b": 1.0} and summary.ranks[0].over_datasets is None
    assert summary.ranks[2].interval == (2.5, 2.5)  # far from the others in every cell


def test_the_interval_is_over_the_means(record):
    """Two close methods have ranks 1 and 2, with the probability that the difference of two t variables is positive."""
    values = {(data, 1): {"dm": 0.51, "dc": 0.5, "random": 0.1} for data in ("a", "b", "c")}
    (summary,) = rank_summaries(boards(entries(record, values), []))
    first = summary.ranks[0]
    error = np.std(FIVE, ddof=1) / 5**0.5
    t = stats.t.rvs(4, size=(2, 3, 100_000), random_state=1)
    ranks = 1 + (0.01 + error * (t[0] - t[1]) < 0).mean(0)
    assert first.method == "dm" and first.mean == 1.0
    assert first.interval == pytest.approx(np.quantile(ranks, [0.025, 0.975]), abs=1e-9)
    assert first.over_datasets == (1.0, 1.0)


def test_what_is_not_ranked_does_not_enter(record):
    """Label modes are not mixed, and hyper-parameters chosen on test data do not enter."""
    values = {(data, 1): {"dm": 0.5, "dc": 0.6, "random": 0.1} for data in ("a", "b")}
    soft = entries(record, values, label_mode="soft")
    chosen = {"config": {"method": {"lr_img": 9.0}, "hyperparameters": "test"}}
    more = entries(record, {(data, 1): {"mtt": 0.9} for data in ("a", "b")}, **chosen)
    hard = entries(record, {key: found | {"ftd": 0.7} for key, found in values.items() if key[0] == "a"})
    hard += entries(record, {("b", 1): values["b", 1]})
    summaries = rank_summaries(boards([*hard, *soft, *more], []))
    assert [s.setting.label_mode for s in summaries] == ["hard", "soft"]
    assert all({rank.method for rank in s.ranks} == {"dm", "dc", "random"} for s in summaries)
    assert summaries[0].left_out == {"ftd": 1}
    part = rank_parts(boards([*hard, *soft, *more], []))[0]
    assert part["title"] == "hard v1, hard labels, accuracy" and "ftd (1 of 2)" in part["text"]
    assert part["text"].startswith("3 methods in 2 cells: a (convnet(width=32), IPC 1), b (")
