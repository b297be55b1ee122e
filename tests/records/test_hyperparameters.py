"""How hyper-parameters were chosen: comparison with the YAML file, and the statement of a configuration."""

import pytest

from dd_bench.records.config_diff import leaves, shipped_config, shipped_yaml
from dd_bench.records.hyperparameters import BUDGET, derived, stated


def of(method, **changes):
    return shipped_config("method", method) | changes


def test_only_the_budget_may_differ_from_the_yaml_file():
    assert derived("dm", of("dm")) == derived("dm", of("dm", iterations=10, batch_real=8)) == "paper"
    assert derived("dm", of("dm", lr_img=2.0)) == "untuned"
    assert derived("random", of("random")) == "paper"  # no hyper-parameters
    assert derived("somebody_elses", {"lr": 1.0}) == "untuned"


def test_every_budget_key_belongs_to_a_shipped_method():
    """`store` and `bits` are keys of every method, in conf/config.yaml."""
    names = ("dm", "mtt", "ncfm", "kmeans", "random_graphs", "random_nodes", "bonsai")
    shipped = {key for name in names for key, _ in leaves(shipped_config("method", name))}
    assert shipped | {"store", "bits"} >= BUDGET


@pytest.mark.parametrize(
    ("experiment", "changes", "expected"),
    [
        ("paper/cifar10/mtt_ipc10", {}, "paper"),
        ("paper/cifar10/mtt_ipc10", {"iterations": 10}, "paper"),
        ("paper/cifar10/mtt_ipc10", {"lr_img": 5.0}, None),
        (None, {"lr_img": 5.0}, "paper"),
        ("of_another_package", {"lr_img": 5.0}, "paper"),
    ],
)
def test_a_statement_of_an_experiment_ends_with_a_changed_value(experiment, changes, expected):
    own = shipped_yaml("experiment", "paper/cifar10/mtt_ipc10")
    values = of("mtt", **own["method"]) | {"window": own["method"]["window"]} | changes
    values["window"] = shipped_config("method", "mtt")["window"] | own["method"]["window"]
    assert stated({"method": values, "hyperparameters": "paper"}, "mtt", experiment) == expected
    assert stated({"method": values, "hyperparameters": "test"}, "mtt", experiment) == "test"


@pytest.mark.parametrize("value", ["validation", "papers", True, ["paper"]])
def test_an_unknown_statement_is_an_error(value):
    with pytest.raises(ValueError, match="hyperparameters must be paper, untuned, test or null, got"):
        stated({"method": {}, "hyperparameters": value}, "dm", None)
