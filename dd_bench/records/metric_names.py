"""Names of main metrics under protocols that report only the best of several networks, see `best_runs`."""

from __future__ import annotations

import re


def best_runs_metric(metric: str, keep: int | None) -> str:
    """Return the name of `metric` of the `keep` best networks of each set. None: all networks, the name is the same."""
    return metric if keep is None else f"{metric}_best{keep}"


def all_runs_metric(metric: str) -> str:
    """Return the metric of all networks that belongs to a main metric, e.g. `auc` for `auc_best5` and for `auc`."""
    return re.sub(r"_best[0-9]+$", "", metric)
