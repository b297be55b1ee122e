"""Studies of Optuna: the same trials with and without interruptions, several processes, and failed trials."""

import optuna
import pytest

from dd_bench.pipeline.search_space import search_space
from dd_bench.pipeline.study import Study
from dd_bench.records.tuning import Trial

SPACE = search_space(["method.a=tag(log,interval(0.1,10))"])
GRID = search_space(["method.a=1,2,3"])


def finish(study, started, status="done") -> None:
    """Store a result of a trial. The best value of the key is 1."""
    value = -((started.params["method.a"] - 1) ** 2) if status == "done" else None
    reason = None if status == "done" else "a reason"
    study.tell(
        Trial(number=started.number, params=started.params, status=status, value=value, reason=reason),
        {"ipc": 1},
    )


def advance(study, stop_at=None) -> list[tuple]:
    """Run the missing trials. Trial number `stop_at` is interrupted. Return what was started."""
    seen = []
    while True:
        with study.next_trial() as started:
            if started is None:
                return seen
            seen.append((started.number, started.params, started.resumed))
            if started.number == stop_at:
                return seen
            finish(study, started)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 10])
def test_interrupted_study_has_the_same_trials(tmp_path, stop_at):
    """Also after the ten random trials, when TPE uses the results."""
    count = stop_at + 2
    whole = [(number, params) for number, params, _ in advance(Study(tmp_path / "a", SPACE, 0, count, {}))]
    first = advance(Study(tmp_path / "b", SPACE, 0, count, {}), stop_at)
    study = Study(tmp_path / "b", SPACE, 0, count, {})
    second = advance(study)
    assert [number for number, _, _ in second] == [stop_at, stop_at + 1] and second[0] == (
        stop_at,
        first[-1][1],
        True,
    )
    assert [(number, params) for number, params, _ in first[:-1] + second] == whole
    assert advance(study) == [] and [(t.number, t.params) for t in study.results()] == whole
    assert study.names(stop_at) == {"ipc": 1}


def test_processes_share_a_study(tmp_path):
    """A trial that another process runs is not started again, and every point of a grid is tried once."""
    one, two = (Study(tmp_path, GRID, 0, 20, {}) for _ in range(2))
    with one.next_trial() as running:
        others = advance(two)
        finish(one, running)
    assert one.sampler == "grid" and one.total == 3
    assert sorted([running.params["method.a"], *(p["method.a"] for _, p, _ in others)]) == [1, 2, 3]
    assert advance(one) == []


def test_failed_trials_are_repeated_by_the_next_process(tmp_path):
    """Diverged and skipped trials are not. For Optuna they are pruned."""
    study, tried = Study(tmp_path / "s", GRID, 0, 20, {"version": 1}), []
    for status in ("failed", "diverged", "skipped"):
        with study.next_trial() as started:
            tried.append(started.params)
            finish(study, started, status)
    with study.next_trial() as none:
        assert none is None
    study = Study(tmp_path / "s", GRID, 0, 20, {"version": 1})
    assert advance(study) == [(3, tried[0], False)]
    assert [(t.number, t.status) for t in study.results()] == [(1, "diverged"), (2, "skipped"), (3, "done")]
    stored = optuna.load_study(
        study_name="s", storage=f"sqlite:///{tmp_path / 's' / 'study.db'}"
    ).get_trials()
    assert [t.state.name for t in stored] == ["FAIL", "PRUNED", "PRUNED", "COMPLETE"]
    with pytest.raises(
        ValueError, match=r"is another study: its version is 1, not 2\. Use another name: --name"
    ):
        Study(tmp_path / "s", GRID, 0, 20, {"version": 2})
