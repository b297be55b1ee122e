"""Paired tests of records, and the command."""

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.entries import entry_name
from dd_bench.leaderboards.core.ranking import holm
from dd_bench.leaderboards.render.paired_tests import compare, pairs_table


@pytest.fixture
def three(record):
    return [
        record("dm", 10, [[0.70, 0.72, 0.74, 0.71]]),
        record("mtt", 10, [[0.71, 0.735, 0.75, 0.72]]),
        record("dc", 10, [[0.60, 0.62, 0.65, 0.61]]),
    ]


def test_pairs_share_seeds(three):
    pairs = compare(three)
    assert [(p.first.method, p.second.method) for p in pairs] == [("dm", "mtt"), ("dm", "dc"), ("mtt", "dc")]
    assert pairs[0].difference.mean == pytest.approx(-0.01125) and pairs[0].difference.n == 4
    low, high = pairs[0].bootstrap
    assert -0.015 <= low < -0.01125 < high <= -0.01, "means of resamples stay within the differences"
    assert [p.adjusted for p in pairs] == holm([p.difference.p for p in pairs])


def test_seeds_of_only_one_record_are_left_out(record):
    a, b = record("dm", 10, [[0.7, 0.72, 0.9]]), record("dc", 10, [[0.6, 0.65]])
    (pair,) = compare([a, b])
    assert pair.difference.n == 2 and pair.difference.mean == pytest.approx(0.085)
    assert pair.left_out == (1, 0)
    assert "1 networks of the first, 0 of the second" in pairs_table([pair])


def test_networks_of_further_sets_are_not_dropped_silently(record):
    """The second set has two networks more than the other record."""
    a, b = record("dm", 10, [[0.7, 0.72]]), record("dc", 10, [[0.6, 0.65], [0.5, 0.55, 0.57, 0.59]])
    (pair,) = compare([a, b])
    assert pair.difference.mean == pytest.approx((0.7 + 0.72 - 0.55 - 0.60) / 2)
    assert pair.left_out == (0, 2)
    assert "0 networks of the first, 2 of the second" in pairs_table([pair])
    assert "Left out" not in pairs_table(compare([a, a.model_copy(update={"key": "x"})]))


def test_incomparable_records_are_rejected(record, three):
    with pytest.raises(ValueError, match="got 2 tracks"):
        compare([three[0], record("dm", 10, [[0.5, 0.6]], dataset="digits")])
    with pytest.raises(ValueError, match="must share at least 2 network seeds, got 1"):
        compare([three[0], record("dm", 10, [[0.5]])])


def test_the_command(three, tmp_path, capsys):
    paths = [str(r.save(tmp_path / entry_name(r))) for r in three]
    assert main(["compare", *paths]) == 0
    out = capsys.readouterr().out
    assert out.strip() == pairs_table(compare(three)).strip() and "p (Holm)" in out
    assert main(["compare", str(tmp_path / "none.json")]) == 1
