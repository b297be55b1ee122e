"""What the tests of evaluators share."""

import pytest

from dd_bench.evaluators import _rank_agreement


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Ends of a bootstrap interval from 100 resamples: enough to see that they are there."""
    monkeypatch.setattr(_rank_agreement, "DRAWS", 100)


def scores_by_network(evaluator, syn, real, ctx):
    """Returns the scores that an evaluator yields, a list for each network."""
    return [list(found.scores) for found in evaluator.run(syn, real, ctx) if found.scores]


def notes_of(evaluator, syn, real, ctx):
    """Returns the remarks that an evaluator yields, each once."""
    return list(dict.fromkeys(note for found in evaluator.run(syn, real, ctx) for note in found.notes))
