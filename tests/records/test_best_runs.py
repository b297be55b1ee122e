"""The best runs by validation score, and the main metric of a record that reports them."""

import pytest

from dd_bench.records.best_runs import best_runs
from dd_bench.records.metric_names import all_runs_metric, best_runs_metric
from dd_bench.records.record import Code, ProtocolId, Record, Score


def scores(metric, *values, set=0):
    """Return the scores of the networks 0, 1, 2, ... of a set."""
    return [Score(metric=metric, value=v, set=set, network=i, seed=i) for i, v in enumerate(values)]


def test_names_of_metrics():
    assert best_runs_metric("auc", 5) == "auc_best5" and best_runs_metric("auc", None) == "auc"
    assert all_runs_metric("auc_best5") == "auc"
    for metric in ("auc", "best_val", "auc_best"):
        assert all_runs_metric(metric) == metric


def test_networks_are_selected_by_their_validation_scores_and_not_by_their_test_scores():
    both = scores("auc", 0.9, 0.5, 0.7, 0.6) + scores("val", 0.1, 0.8, 0.7, 0.2)
    kept = best_runs(both, "auc", 2)
    assert [(s.metric, s.network, s.value) for s in kept] == [("auc_best2", 1, 0.5), ("auc_best2", 2, 0.7)]


def test_equal_validation_scores_keep_the_first_networks():
    both = scores("auc", 0.1, 0.2, 0.3) + scores("val", 0.5, 0.5, 0.5)
    assert [s.network for s in best_runs(both, "auc", 2)] == [0, 1]


def test_networks_of_each_set_are_selected():
    both = [
        *scores("auc", 0.1, 0.2),
        *scores("val", 0.1, 0.2),
        *scores("auc", 0.3, 0.4, set=1),
        *scores("val", 0.9, 0.8, set=1),
    ]
    assert [(s.set, s.network) for s in best_runs(both, "auc", 1)] == [(0, 1), (1, 0)]
    assert len(best_runs(both, "auc", 5)) == 4, "a set with fewer networks keeps all"
    assert best_runs(both, "auc", None) == []


def test_summary_of_a_record_is_that_of_the_best_runs():
    both = scores("auc", 0.98, 0.5, 0.999) + scores("val", 0.9, 0.1, 0.8)
    record = Record(
        key="k", status="done", created="2026-01-02T03:04:05+00:00", method="mirage", dataset="NCI1", model="gcn",
        ipc=1, protocol=ProtocolId(name="mirage-legacy", version=1), evaluator="graph", selection="best_on_val",
        label_mode="hard", main_metric="auc_best2", scores=both + best_runs(both, "auc", 2), config={},
        seeds={"run": 0}, real_digest="d", code=Code(version="0", numbers=1, revision=None, dirty=None),
        device="cpu", versions={},
    )  # fmt: skip
    assert record.all_runs_metric == "auc" and record.is_share
    assert record.summary().num_networks == 2 and record.summary().mean == pytest.approx(0.9895)
    assert record.summary().ci_high == 1.0, "the interval of a share is clipped"
    assert record.summary("auc").num_networks == 3
