"""What the tests of evaluators share."""

import pytest

from dd_bench.evaluators import _rank_agreement


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Ends of a bootstrap interval from 100 resamples: enough to see that they are there."""
    monkeypatch.setattr(_rank_agreement, "DRAWS", 100)
