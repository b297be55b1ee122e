"""Selectors of entries, numbers named by a line, verdicts of claims, and their page."""

import json
from pathlib import Path

import pytest

from dd_bench.leaderboards.core import claims as module
from dd_bench.leaderboards.core.claims import Check, Claim, Paper, load_claims, measure, summary
from dd_bench.leaderboards.core.claims import Track as ClaimTrack
from dd_bench.leaderboards.core.differences import difference
from dd_bench.leaderboards.core.paper_budget import compare_budget
from dd_bench.leaderboards.core.published import PublishedSet
from dd_bench.leaderboards.core.quantities import Sources
from dd_bench.leaderboards.core.selectors import NotMeasuredError, Selector, select
from dd_bench.leaderboards.render.claims import claims_of, overview
from dd_bench.leaderboards.render.inline_values import fill_values
from dd_bench.records.record import ProtocolId, Score

DM = [0.70, 0.71, 0.72]
DATADAM = [0.73, 0.74, 0.75]
CORRELATIONS = ((("ftd", [[0.1]]), (-1.0, 1.0)), (("dm", [[0.1]]), (-0.2, 0.4)))
"""Method and value of two entries, and the intervals of their correlations."""


@pytest.fixture
def entry(record):
    """Return a function that makes an entry of digits, IPC 1, protocol quick, with one or several sets."""

    def make(method, sets, iterations=100, **changes):
        config = {"model": {"width": 32}, "method": {"iterations": iterations}}
        protocol = ProtocolId(name="quick", version=1)
        return record(method, 1, sets, dataset="digits", config=config, protocol=protocol, **changes)

    return make


@pytest.fixture
def sources(tmp_path, entry):
    (tmp_path / "drift.json").write_text(
        json.dumps(
            {
                "a": {"mean": 2.0, "values": [1.0, 2.0, 3.0]},
                "b": [0.25, {"mean": 1, "ci_low": 0, "ci_high": 2}],
            }
        )
    )
    cell = {"method": "dm", "ipc": 1, "mean": 70.4, "std": 0.5, "protocol": "p", "source": "from memory"}
    printed = {
        "dataset": "digits",
        "model": "convnet",
        "unit": "percent",
        "cells": [cell | {"verified": False}],
    }
    entries = [
        entry("dm", [DM]),
        entry("dm", [[0.1, 0.2, 0.3]], iterations=10),
        entry("datadam", [DATADAM]),
    ]
    return Sources(entries, [PublishedSet.model_validate(printed)], tmp_path)


def test_the_entry_with_the_largest_budget_is_selected(sources):
    line = ["digits", "quick", "dm", "ipc=1"]
    assert select(sources.entries, Selector.parse(line)) is sources.entries[0]
    small = Selector.parse([*line, "method.iterations=10"])
    assert select(sources.entries, small) is sources.entries[1]
    with pytest.raises(NotMeasuredError, match=r"sizes\.json"):
        sources.read("benchmark sizes a")
    with pytest.raises(NotMeasuredError, match="digits quick dm ipc=2"):
        select(sources.entries, Selector.parse(["digits", "quick", "dm", "ipc=2"]))
    with pytest.raises(ValueError, match="Example: fashion_mnist dc-300 dm"):
        Selector.parse(["digits", "dm"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mean digits quick dm ipc=1", "71.0"),
        ("score digits quick dm ipc=1", "71.0 [68.5, 73.5]"),
        ("diff digits quick datadam ipc=1 vs dm", "3.0 [3.0, 3.0]"),
        ("gap digits quick dm ipc=1 vs method.iterations=10", "51.0"),
        ("networks digits quick dm", "3"),
        ("config digits quick dm method.iterations", "100"),
        ("benchmark drift b/0", "0.25"),
        ("benchmark drift a digits=1", "2.0 [-0.5, 4.5]"),
        ("benchmark drift b/-1 digits=1", "1.0 [0.0, 2.0]"),
        ("benchmark drift a[0::2] digits=0", "2 [-11, 15]"),
        ("benchmark drift a vs a digits=1", "0.0 [0.0, 0.0]"),
        ("published digits convnet dm ipc=1", "70.4 ± 0.5†"),
        ("shipped method dm iterations", "20,000"),
        ("ratio config digits quick dm method.iterations / benchmark drift b/0", "400"),
    ],
)
def test_numbers(sources, line, text):
    assert sources.read(line).text == text


@pytest.mark.parametrize(
    "line", ["median x", "mean digits", "benchmark drift c", "diff digits quick dm ipc=1"]
)
def test_wrong_lines_are_refused(sources, line):
    with pytest.raises(ValueError, match=r".+") as raised:
        sources.read(line)
    assert not isinstance(raised.value, NotMeasuredError)


def test_difference_of_several_sets_is_not_paired(entry):
    """The means of two sets are independent of the networks of the other entry."""
    one, two = entry("dm", [[0.6, 0.7, 0.8]]), entry("random", [[0.4, 0.5], [0.6, 0.5]])
    d = difference(one, two)
    assert d.mean == pytest.approx(0.2) and d.low < 0 < d.high and d.n == 2
    assert d.high - d.mean == pytest.approx(d.mean - d.low)


@pytest.mark.parametrize(
    ("threshold", "verdict"),
    [
        ({"above": 0}, "reproduced"),
        ({"above": 0.1}, "contradicted"),
        ({"below": 0}, "contradicted"),
        ({"below": 0.1}, "reproduced"),
        ({"equals": 0}, "contradicted"),
    ],
)
def test_verdict_of_a_difference(sources, threshold, verdict):
    check = Check(label="x", read="diff digits quick datadam ipc=1 vs dm", **threshold)
    (result,) = measure(ClaimTrack(protocol="quick", checks=[check]), sources)
    assert result.verdict == verdict


def test_a_number_without_an_interval_has_no_verdict(entry, tmp_path):
    """One network has no interval. A deterministic selection has none to have, if its head has a closed form."""

    def verdicts(read, *entries):
        track = ClaimTrack(protocol="quick", checks=[Check(label="x", read=read, above=0)])
        (result,) = measure(track, Sources(entries, [], tmp_path))
        return result.verdict

    several, one = entry("dm", [DM]), entry("datadam", [[0.9]])
    assert verdicts("mean digits quick datadam", one) == "no verdict"
    assert verdicts("diff digits quick datadam vs dm", several, one) == "no verdict"
    ridge = {"model": {"width": 32}, "method": {}, "protocol": {"probe": {"ridge": 0.01}}}
    for method, verdict in (("centroid", "contradicted"), ("random", "no verdict")):
        exact = entry(method, [[0.9]]).model_copy(update={"config": ridge})
        assert verdicts(f"diff digits quick dm vs {method}", several, exact) == verdict


def correlation(record, low, high):
    scores = [
        Score(metric=name, value=value, set=0, network=0, seed=0)
        for name, value in (("spearman", 0.1), ("spearman_low", low), ("spearman_high", high))
    ]
    return record.model_copy(update={"scores": scores, "main_metric": "spearman"})


def test_an_interval_of_all_correlations_is_none(entry, tmp_path):
    wide, narrow = (correlation(entry(*words), *ends) for words, ends in CORRELATIONS)
    for first, second, verdict in ((wide, narrow, "no verdict"), (narrow, narrow, "level")):
        second = second.model_copy(update={"method": "mtt", "key": "x" * 16})
        line = f"diff digits quick {first.method} vs mtt"
        track = ClaimTrack(protocol="quick", checks=[Check(label="x", read=line, above=0)])
        assert measure(track, Sources([first, second], [], tmp_path))[0].verdict == verdict


def test_verdict_of_an_interval_and_of_a_missing_entry(sources):
    level = Check(label="x", read="mean digits quick dm", above=0.71)
    missing = Check(label="x", read="mean digits quick ftd", above=0)
    reached = Check(label="x", read="score digits quick dm", reaches="published digits convnet dm ipc=1")
    low = Check(label="x", read="score digits quick dm", reaches=0.8)
    equal = Check(label="x", read="score digits quick dm", equals=0.72)
    results = measure(ClaimTrack(protocol="quick", checks=[level, missing, reached, low, equal]), sources)
    verdicts = ["level", "not measured yet", "reproduced", "contradicted", "level"]
    assert [r.verdict for r in results] == verdicts
    assert summary(results[:1]) == "level" and "contradicted 1 of 5" in summary(results)


def test_the_budget_is_compared_with_the_papers(entry):
    own = entry("dm", [DM])
    assert compare_budget([own], None, "convnet") == ("iterations 100 of 20,000, width 32 of 128", True)
    full = entry("dm", [DM], iterations=20000)
    text, smaller = compare_budget([own, full], None, "convnet")
    assert text.startswith("iterations 100 to 20,000 of 20,000, ") and smaller
    other = compare_budget([full], None, "resnet18_bn")
    assert other == ("iterations 20,000 of 20,000, convnet(width=32) instead of resnet18_bn", True)
    assert compare_budget([], None, None) == ("", False)


def paper_with(check, **fields):
    """Return a paper with one claim, which has one check."""
    claim = Claim(
        claim="FTD is better.",
        published=[],
        paper_protocol="not different",
        honest=ClaimTrack(protocol="quick", checks=[check]),
        command=["x"],
    )
    return Paper(title="t", page="p", claims=[claim], **fields)


def test_a_row_is_filled_as_soon_as_its_entry_exists(sources, entry):
    check = Check(label="IPC 1", read="diff digits quick ftd ipc=1 vs dm", above=0)
    paper = paper_with(check, name="FTD", methods=["ftd"])
    assert "not measured yet" in claims_of(paper, sources)
    more = Sources([*sources.entries, entry("ftd", [[0.8, 0.81, 0.83]])], [], sources.benchmarks)
    page = claims_of(paper, more)
    assert "10.3 [8.9, 11.8] | ✓ reproduced" in page and "not measured" not in page
    assert "[FTD](#ftd)" in overview([paper], more)


def test_the_budgets_of_all_methods_of_a_paper(sources):
    check = Check(label="x", read="diff digits quick datadam ipc=1 vs dm", above=0)
    paper = paper_with(check, name="x", methods=["dm", "datadam", "dc"])
    page = claims_of(paper, sources)
    assert "dm: iterations 100 of 20,000, width 32 of 128<br>datadam: iterations 100 of 8,000" in page


def test_values_in_the_text_of_a_page(sources):
    text = "DM has <!-- value mean digits quick dm -->?<!-- end --> %."
    assert (
        fill_values(text, sources, "x.md") == "DM has <!-- value mean digits quick dm -->71.0<!-- end --> %."
    )
    with pytest.raises(ValueError, match=r"x\.md: no entry matches"):
        fill_values(text.replace("dm", "ftd"), sources, "x.md")
    with pytest.raises(ValueError, match="followed by"):
        fill_values("<!-- value mean x -->1", sources, "x.md")


def test_the_committed_claims_cover_the_papers():
    papers = load_claims(Path(module.__file__).parents[1] / "published" / "claims.yaml")
    assert {"FTD", "AST", "DataDAM", "CDA", "INFER", "Mirage", "TESLA", "SRe2L"} <= {p.name for p in papers}
    for paper in papers:
        for claim in paper.claims:
            assert claim.paper or claim.honest or claim.needs, (
                f"{paper.name}: no check and no reason: {claim.claim}"
            )


def test_every_paper_has_a_section():
    """The table of all papers links to these sections."""
    page = (Path(__file__).parents[2] / "docs" / "results" / "claims.md").read_text()
    papers = load_claims(Path(module.__file__).parents[1] / "published" / "claims.yaml")
    names = {paper.name for paper in papers}
    assert {name for name in names if f"\n\n<!-- claims {name} -->\n" in page} == names


def test_a_claim_states_the_protocol_of_the_paper():
    track = ClaimTrack(protocol="quick", checks=[])
    for both in ({}, {"paper": track, "paper_protocol": "not different"}):
        with pytest.raises(ValueError, match="one of `paper` and `paper_protocol`: 'x'"):
            Claim(claim="x", published=[], honest=track, command=[], **both)


def test_a_claim_cannot_state_its_verdict(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("- {name: x, title: x, methods: [x], page: x, claims: [], verdict: reproduced}")
    with pytest.raises(ValueError, match="verdict"):
        load_claims(path)
