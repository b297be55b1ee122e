"""The journal of an evaluation: a network's scores are there whole, or the network is trained again."""

import pytest

from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.record import Score


def scores(of_set: int, network: int) -> list[Score]:
    return [
        Score(metric=metric, value=value, set=of_set, network=network, seed=2**62 + network)
        for metric, value in (("accuracy", 0.1 + network / 3), ("calibration", 0.25))
    ]


@pytest.fixture
def path(tmp_path):
    journal = ScoreLog(tmp_path / "work" / "scores.jsonl")
    journal.add(scores(0, 0), 1.25)
    journal.add(scores(0, 2), 1.5)
    journal.add(scores(1, 1), 0.5)
    return tmp_path / "work" / "scores.jsonl"


def test_round_trip(path):
    journal = ScoreLog(path)
    assert journal.scores == [*scores(0, 0), *scores(0, 2), *scores(1, 1)], "floats to the last bit"
    assert (journal.finished(0), journal.finished(1), journal.finished(2)) == ({0, 2}, {1}, set())
    assert journal.seconds_before == 3.25


@pytest.mark.parametrize("lost", [1, 30, 120])
def test_a_cut_line_is_a_network_to_train_again(path, lost):
    """All metrics of a network stand or fall together."""
    path.write_bytes(path.read_bytes()[:-lost])
    journal = ScoreLog(path)
    complete = lost == 1  # the line is whole but for its end
    assert journal.finished(1) == ({1} if complete else set()) and journal.finished(0) == {0, 2}
    journal.add(scores(1, 5), 1.0)
    again = ScoreLog(path)
    assert again.finished(1) == ({1, 5} if complete else {5})


def test_bytes_that_are_no_text(path):
    with path.open("ab") as file:
        file.write(b"\x00\xff\xfe broken")
    assert len(ScoreLog(path).scores) == 6 and b"broken" not in path.read_bytes()


def test_remove(path):
    ScoreLog(path).remove()
    assert not path.exists()
    ScoreLog(path).remove()


def test_a_score_that_is_not_finite_is_no_score():
    with pytest.raises(ValueError, match="finite"):
        Score(metric="accuracy", value=float("nan"), set=0, network=0, seed=0)
