"""Composition of a run: missing data are reported before slow imports, and loading is measured."""

import sys

import pytest
import torch

from dd_bench.pipeline.compose import RunConfig, check_groups, compose


def test_missing_data_are_reported_before_slow_imports(tmp_path, monkeypatch):
    """`torch.compiler.reset` imports `torch._dynamo`, which takes longer than all other imports."""
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "reset", lambda: pytest.fail("imports torch._dynamo"))
    monkeypatch.setitem(sys.modules, "torchvision", None)  # imports torch._dynamo too
    for name in ("cifar10", "cifar100", "mnist", "svhn", "tiny_imagenet", "image_folder", "imagenette"):
        with pytest.raises(FileNotFoundError, match=rf"{name}: no "):
            compose(RunConfig.of([f"dataset={name}", f"dataset.root={tmp_path}", "runtime=plain"]))


def test_compiled_code_of_an_earlier_job_is_removed(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append(1))
    compose(RunConfig.of(["dataset=digits", "runtime=plain"]))
    assert calls == [1]


def test_labels_without_effect_are_refused():
    """By a run and by the check of all jobs of a sweep. The temperature of the protocol file may stay."""
    some = ["dataset=digits", "teacher=convnet_w32_bn", "runtime=plain", "protocol=labels-400"]
    wrong = RunConfig.of([*some, "protocol.labels.kind=online", "protocol.labels.pool=16"])
    use = "protocol.labels.pool=16 has no effect with kind=online. Use protocol.labels.pool=1"
    for check in (compose, lambda run: check_groups(run.cfg, run.choices)):
        with pytest.raises(ValueError, match=use):
            check(wrong)
    hard = RunConfig.of([*some, "protocol.labels.kind=hard"])
    check_groups(hard.cfg, hard.choices)
    hot = RunConfig.of([*some, "protocol.labels.kind=hard", "protocol.labels.temperature=3"])
    with pytest.raises(ValueError, match=r"Use protocol.labels.temperature=30.0"):
        check_groups(hot.cfg, hot.choices)


def test_peak_memory_of_loading(monkeypatch):
    experiment = compose(RunConfig.of(["dataset=digits", "runtime=plain"]))
    assert experiment.loading.peak_memory["load"] > 2**20


def test_shifts_of_the_dataset_are_part_of_the_key():
    """The key without shifts is that of a set in `leaderboards/sets`, which is older than these configuration keys."""
    run = ["experiment=fashion_w32_dm", "dataset=digits", "ipc=1", "runtime=plain"]
    plain, shifted, noisy = (
        compose(RunConfig.of([*run, *more]))
        for more in ([], ["dataset.imbalance=10"], ["dataset.imbalance=10", "dataset.label_noise=0.1"])
    )
    assert plain.set_key(0) == "34a97630d786490e" and plain.real.name == "digits"
    assert len({e.set_key(0) for e in (plain, shifted, noisy)}) == 3
    assert (shifted.real.name, noisy.real.name) == ("digits-lt10", "digits-lt10-sym0.1")
    assert noisy.config["dataset"]["label_noise"] == 0.1
    reason = compose(
        RunConfig.of(["dataset=digits", "method=random", "dataset.imbalance=100", "runtime=plain"])
    ).check()
    assert "ipc=10 exceeds the size of class '9' of digits-lt100 (1 images)" in reason
