"""Missing keys: the message names the YAML file, its value and the override that removed the key."""

import pytest

from dd_bench.pipeline.compose import RunConfig, check_groups, compose
from dd_bench.pipeline.missing_keys import explain_missing
from dd_bench.runtime.suggestions import MissingKeyError


@pytest.mark.parametrize(
    ("overrides", "file", "setting"),
    [
        (["~ipc"], "config", "ipc=10"),
        (["~out"], "config", "out=runs"),
        (["~method"], "config", "method=dm"),
        (["~logger"], "config", "logger=console"),
        (["method=dm", "~method.iterations"], "method/dm", "method.iterations=20000"),
        (["method=datadam", "~method.lr_img"], "method/datadam", "method.lr_img=1.0"),
        (["method=mtt", "~method.experts.count"], "method/mtt", "method.experts.count=100"),
        (["~model.width"], "model/convnet", "model.width=128"),
        (["~dataset.val_fraction"], "dataset/digits", "dataset.val_fraction=0.0"),
        (["~evaluator.num_networks"], "evaluator/accuracy", "evaluator.num_networks=5"),
        (["~protocol.selection"], "protocol/quick", "protocol.selection=last"),
        (["~protocol.recipe.lr"], "protocol/quick", "protocol.recipe.lr=0.01"),
        (["runtime=plain", "~runtime.device"], "runtime/plain", "runtime.device=auto"),
        (["~teachers.convnet_bn.weights"], "teacher/convnet_bn", "teachers.convnet_bn.weights=squeeze"),
        (["~teachers.convnet_bn.model.width"], "teacher/convnet_bn", "teachers.convnet_bn.model.width=128"),
        (
            ["evaluator=cross_arch", "~evaluator.networks.alexnet.norm"],
            "evaluator/cross_arch",
            "evaluator.networks.alexnet.norm=none",
        ),
    ],
)
def test_message(overrides, file, setting):
    key = setting.partition("=")[0]
    with pytest.raises(ValueError) as error:
        run = RunConfig.of(overrides)
        check_groups(run.cfg, run.choices)
    expected = f"{key} is missing. conf/{file}.yaml has {setting}. "
    assert str(error.value) == f"{expected}Remove the override ~{key}, or use {setting} instead"


def test_run_has_the_same_message():
    with pytest.raises(ValueError, match=r"conf/method/dm\.yaml has method\.iterations=20000"):
        compose(RunConfig.of(["method=dm", "~method.iterations", "runtime=plain"]))


def test_other_missing_values():
    """A key of another package's file, a key without a plain value, and a key that is null already."""
    error = MissingKeyError(["method.steps", "cache"])
    assert explain_missing(error, {"method": "mine"}).splitlines() == [
        "method.steps is missing. Add it to the YAML file of method=mine, or use +method.steps=VALUE",
        "cache is missing. Remove the override ~cache, or use +cache=VALUE",
    ]
    with pytest.raises(
        ValueError, match=r"set is null already, so ~set is not needed\. To change it: set=VALUE"
    ):
        RunConfig.of(["~set"])


def test_networks_can_be_removed_from_an_evaluator():
    run = RunConfig.of(["evaluator=cross_arch", "~evaluator.networks.mlp"])
    check_groups(run.cfg, run.choices)


@pytest.mark.parametrize(
    "override", ["method=random +method.nosuch=1", "evaluator=cross_arch +evaluator.networks.mlp.nosuch=1"]
)
def test_unknown_nested_keys(override):
    run = RunConfig.of(override.split())
    with pytest.raises(ValueError, match=r"nosuch is not a configuration key"):
        check_groups(run.cfg, run.choices)
