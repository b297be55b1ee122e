"""Composition of a run: missing data are reported before slow imports, and loading is measured."""

import sys

import pytest
import torch

from dd_bench.pipeline.compose import RunConfig, compose


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


def test_peak_memory_of_loading(monkeypatch):
    experiment = compose(RunConfig.of(["dataset=digits", "runtime=plain"]))
    assert experiment.loading.peak_memory["load"] > 2**20
