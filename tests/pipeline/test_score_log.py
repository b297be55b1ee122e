"""The score log: all scores of a network are stored, or none are and the network is trained again."""

import pytest

from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.record import Score


def scores(set_index: int, network: int) -> list[Score]:
    return [
        Score(metric=metric, value=value, set=set_index, network=network, seed=2**62 + network)
        for metric, value in (("accuracy", 0.1 + network / 3), ("calibration", 0.25))
    ]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "work" / "scores.jsonl"
    log = ScoreLog(path)
    log.add(scores(0, 0), 1.25)
    log.add(scores(0, 2), 1.5)
    log.add(scores(1, 1), 0.5)
    return path


def test_round_trip(path):
    log = ScoreLog(path)
    assert log.scores == [*scores(0, 0), *scores(0, 2), *scores(1, 1)], "floats must be exact"
    assert (log.finished(0), log.finished(1), log.finished(2)) == ({0, 2}, {1}, set())
    assert log.seconds_before == 3.25


@pytest.mark.parametrize("lost", [1, 30, 120])
def test_cut_line_is_dropped(path, lost):
    """A network with a cut line has no scores at all, so it is trained again."""
    path.write_bytes(path.read_bytes()[:-lost])
    log = ScoreLog(path)
    complete = lost == 1  # only the newline is missing
    assert log.finished(1) == ({1} if complete else set()) and log.finished(0) == {0, 2}
    log.add(scores(1, 5), 1.0)
    assert ScoreLog(path).finished(1) == ({1, 5} if complete else {5})


def test_invalid_bytes_are_dropped(path):
    with path.open("ab") as file:
        file.write(b"\x00\xff\xfe broken")
    assert len(ScoreLog(path).scores) == 6 and b"broken" not in path.read_bytes()


def test_remove_twice(path):
    ScoreLog(path).remove()
    assert not path.exists()
    ScoreLog(path).remove()


def test_non_finite_score_is_rejected():
    with pytest.raises(ValueError, match="finite"):
        Score(metric="accuracy", value=float("nan"), set=0, network=0, seed=0)
