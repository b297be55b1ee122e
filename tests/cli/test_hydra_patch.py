"""Sweeps work with the private API of Hydra 1.3 and reject any other version with a line to paste."""

import sys
from dataclasses import make_dataclass

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from dd_bench.cli import hydra_patch
from dd_bench.cli.hydra_patch import UnsupportedHydraError, check_hydra, select_jobs, split_jobs, task_result

OVERRIDES = ["method=random,dm", "ipc=1,10"]
JOBS = [[f"method={m}", f"ipc={i}"] for m in ("random", "dm") for i in (1, 10)]


def parse(overrides):
    return OverridesParser.create().parse_overrides(overrides)


@pytest.fixture
def sweeper(monkeypatch):
    """Hydra's sweeper class; its original method is restored after the test."""
    Plugins.instance()
    cls = sys.modules["hydra._internal.core_plugins.basic_sweeper"].BasicSweeper
    monkeypatch.setattr(cls, "split_arguments", staticmethod(cls.split_arguments))
    return cls


def test_installed_hydra_is_supported():
    """Fails for every version except 1.3 (see pyproject.toml), and if a private API that we use has changed."""
    assert hydra.__version__.startswith("1.3."), f"hydra-core {hydra.__version__}: check hydra_patch.py"
    check_hydra()


@pytest.mark.parametrize("version", ["1.2.0", "1.4.0", "1.4.0.dev1", "1.30.0", "2.0.0"])
def test_other_versions_are_rejected(monkeypatch, version):
    monkeypatch.setattr(hydra, "__version__", version)
    with pytest.raises(
        UnsupportedHydraError, match=rf"found hydra-core {version}\. Use: pip install 'hydra-core=="
    ):
        check_hydra()


def renamed(overrides, batch_size):
    """A parameter with another name."""


def longer(overrides, max_batch_size, loader):
    """An additional parameter."""


@pytest.mark.parametrize(
    "changed",
    [staticmethod(renamed), staticmethod(longer), longer, classmethod(longer)],
    ids=["renamed", "longer", "instance_method", "class_method"],
)
def test_changed_signature_is_rejected(sweeper, monkeypatch, changed):
    monkeypatch.setattr(sweeper, "split_arguments", changed)
    with pytest.raises(UnsupportedHydraError, match="must be a static method"):
        select_jobs(lambda overrides, jobs: jobs)


def test_missing_method_is_rejected(sweeper, monkeypatch):
    monkeypatch.delattr(sweeper, "split_arguments")
    with pytest.raises(UnsupportedHydraError, match=r"has no BasicSweeper\.split_arguments"):
        check_hydra()
    monkeypatch.setattr(hydra_patch, "_SWEEPER", "hydra._internal.moved")
    with pytest.raises(UnsupportedHydraError, match="No module named"):
        check_hydra()


def test_missing_field_is_rejected(monkeypatch):
    monkeypatch.setattr(hydra_patch, "JobReturn", make_dataclass("JobReturn", ["overrides", "status"]))
    with pytest.raises(UnsupportedHydraError, match="has no _return_value"):
        check_hydra()


def test_command_rejects_sweep_in_one_line(dd_bench, monkeypatch):
    monkeypatch.setattr(hydra, "__version__", "1.4.0")
    message = str(dd_bench("run", "-m", *OVERRIDES).code)
    assert message.startswith(
        "dd-bench: sweeps need hydra-core 1.3, found hydra-core 1.4.0. Use: pip install"
    )


def test_split_jobs():
    assert split_jobs(parse(OVERRIDES)) == JOBS


@pytest.mark.parametrize(("size", "batches"), [(None, [3]), (2, [2, 1]), (5, [3])])
def test_sweeper_launches_selected_jobs(sweeper, size, batches):
    calls = []

    def select(overrides, jobs):
        calls.append((overrides, jobs))
        return jobs[1:]

    select_jobs(select)
    actual = sweeper.split_arguments(parse(OVERRIDES), size)
    assert calls == [(OVERRIDES, JOBS)] and [len(batch) for batch in actual] == batches
    assert [job for batch in actual for job in batch] == JOBS[1:]
    select_jobs(lambda overrides, jobs: [])
    assert sweeper.split_arguments(parse(OVERRIDES), size) == [], "an empty selection must give no batch"
    assert split_jobs(parse(OVERRIDES)) == JOBS, "the original function must still be used"


def test_task_result_does_not_raise(capsys):
    assert task_result(JobReturn(status=JobStatus.COMPLETED, _return_value=3)) == 3
    error = ValueError("why")
    assert task_result(JobReturn(status=JobStatus.FAILED, _return_value=error)) is error
    assert capsys.readouterr().err == ""
