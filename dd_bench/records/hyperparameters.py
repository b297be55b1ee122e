"""How the hyper-parameters of a method were chosen: `paper`, `validation`, `untuned` or `test`. Does not import torch.

- `paper`: the values are those of the method's YAML file or of an experiment with the settings of the paper or of its
  released code. Only the budget may differ, such as the number of iterations.
- `validation`: `dd-bench tune` chose them on `dataset.val_fraction` of the training data.
- `untuned`: other values, chosen without a search, for example for short runs on a CPU.
- `test`: chosen by results on test data, or by hand without a record of the data.

The key `hyperparameters` of a configuration states `paper`, `untuned` or `test`. It is part of the record, but of no
content key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from dd_bench.records.config_diff import changed_keys, leaves, shipped_config, shipped_yaml

Choice = Literal["paper", "validation", "untuned", "test"]
KEY = "hyperparameters"
"""Key of the statement in `conf/config.yaml`."""
STATED = tuple(choice for choice in get_args(Choice) if choice != "validation")
"""Values of `KEY`. `validation` is not one of them, because it requires the trials of a study."""
BUDGET = frozenset(
    (
        "iterations",
        "batch_real",
        "class_chunk",
        "num_teachers",
        "teacher.epochs",
        "teacher.milestones",
        "experts.count",
        "experts.dtype",
        "experts.init_epoch",
        "experts.keep",
        "experts.recipe.epochs",
        "experts.recipe.milestones",
        "experts.source",
        "feature_network",
        "store",
        "bits",
        "amount",
        "budget",
        "nodes",
        "bytes",
        "sample",
    )
)
"""Keys of methods that set the cost, the memory, the size of a selection or of a stored value, or which networks sets
share. `paper` allows other values for them."""


def changed_beyond_budget(method: str, values: Mapping[str, Any]) -> list[str]:
    """Return the values that differ from a shipped method's YAML file as `key=value`, without those in `BUDGET`."""
    changed = changed_keys("method", method, dict(values))
    return [change for change in changed if change.partition("=")[0] not in BUDGET]


def derived(method: str, values: Mapping[str, Any]) -> Choice:
    """Return how values were chosen if nothing states it: `paper` or `untuned`.

    The values of a method that is not shipped are `untuned`, because there is no YAML file to compare them with. A
    method without hyper-parameters is `paper`.
    """
    if leaves(dict(values)) and not shipped_yaml("method", method):
        return "untuned"
    return "untuned" if changed_beyond_budget(method, values) else "paper"


def stated(config: Mapping[str, Any], method: str, experiment: str | None) -> str | None:
    """Return the statement of a configuration that applies to its values.

    `hyperparameters: paper` of a shipped experiment does not apply if other overrides change the method beyond its
    budget. The result is then None.

    Args:
        config: the configuration of a run by group.
        method: the name of its method.
        experiment: the name of its experiment, if any.

    Raises:
        ValueError: the statement is not in `STATED`.
    """
    value = config.get(KEY)
    if value is not None and value not in STATED:
        raise ValueError(
            f"{KEY} must be {', '.join(STATED)} or null, got {value!r}. Example: {KEY}=untuned. "
            "`validation` is recorded by dd-bench tune"
        )
    own = shipped_yaml("experiment", experiment).get("method", {}) if experiment else {}
    if value != "paper" or not own:
        return value
    expected = dict(leaves(shipped_config("method", method))) | dict(leaves(own))
    changed = {k for k, v in leaves(config["method"]) if k not in BUDGET and expected.get(k) != v}
    return None if changed else value
