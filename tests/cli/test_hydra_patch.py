"""The private parts of Hydra that sweeps use are those of 1.3; anything else is refused with a line to paste."""

import sys
from dataclasses import make_dataclass

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from dd_bench.cli import hydra_patch
from dd_bench.cli.hydra_patch import UnsupportedHydraError, check_hydra, select_jobs, split_jobs, task_result

WORDS = ["method=random,dm", "ipc=1,10"]
ALL = [[f"method={m}", f"ipc={i}"] for m in ("random", "dm") for i in (1, 10)]


def parsed(words):
    return OverridesParser.create().parse_overrides(words)


@pytest.fixture
def sweeper(monkeypatch):
    """Hydra's class, which gets its own method back after the test."""
    Plugins.instance()
    cls = sys.modules["hydra._internal.core_plugins.basic_sweeper"].BasicSweeper
    monkeypatch.setattr(cls, "split_arguments", staticmethod(cls.split_arguments))
    return cls


def test_the_installed_hydra_is_supported():
    """Fails on any Hydra but 1.3, as pyproject.toml wants it, and where a private part that we use has changed."""
    assert hydra.__version__.startswith("1.3."), f"hydra-core {hydra.__version__}: read hydra_patch.py again"
    check_hydra()


@pytest.mark.parametrize("version", ["1.2.0", "1.4.0", "1.4.0.dev1", "1.30.0", "2.0.0"])
def test_another_version_is_refused(monkeypatch, version):
    monkeypatch.setattr(hydra, "__version__", version)
    with pytest.raises(
        UnsupportedHydraError, match=rf"found hydra-core {version}\. Use: pip install 'hydra-core=="
    ):
        check_hydra()


def renamed(overrides, batch_size):
    """A parameter has another name."""


def longer(overrides, max_batch_size, loader):
    """There is one more parameter."""


@pytest.mark.parametrize(
    "changed",
    [staticmethod(renamed), staticmethod(longer), longer, classmethod(longer)],
    ids=["renamed", "longer", "plain", "of the class"],
)
def test_a_changed_signature_is_refused(sweeper, monkeypatch, changed):
    monkeypatch.setattr(sweeper, "split_arguments", changed)
    with pytest.raises(UnsupportedHydraError, match="is not a static method of"):
        select_jobs(lambda words, jobs: jobs)


def test_a_missing_method_is_refused(sweeper, monkeypatch):
    monkeypatch.delattr(sweeper, "split_arguments")
    with pytest.raises(UnsupportedHydraError, match=r"has no BasicSweeper\.split_arguments"):
        check_hydra()
    monkeypatch.setattr(hydra_patch, "_SWEEPER", "hydra._internal.moved")
    with pytest.raises(UnsupportedHydraError, match="No module named"):
        check_hydra()


def test_a_missing_field_is_refused(monkeypatch):
    monkeypatch.setattr(hydra_patch, "JobReturn", make_dataclass("JobReturn", ["overrides", "status"]))
    with pytest.raises(UnsupportedHydraError, match="has no _return_value"):
        check_hydra()


def test_the_command_refuses_a_sweep_in_one_line(dd_bench, monkeypatch):
    monkeypatch.setattr(hydra, "__version__", "1.4.0")
    refused = str(dd_bench("run", "-m", *WORDS).code)
    assert refused.startswith(
        "dd-bench: sweeps need hydra-core 1.3, found hydra-core 1.4.0. Use: pip install"
    )


def test_jobs_are_those_of_hydra():
    assert split_jobs(parsed(WORDS)) == ALL


@pytest.mark.parametrize(("size", "batches"), [(None, [3]), (2, [2, 1]), (5, [3])])
def test_the_sweeper_launches_what_is_selected(sweeper, size, batches):
    seen = []

    def select(words, jobs):
        seen.append((words, jobs))
        return jobs[1:]

    select_jobs(select)
    found = sweeper.split_arguments(parsed(WORDS), size)
    assert seen == [(WORDS, ALL)] and [len(batch) for batch in found] == batches
    assert [job for batch in found for job in batch] == ALL[1:]
    select_jobs(lambda words, jobs: [])
    assert sweeper.split_arguments(parsed(WORDS), size) == [], "nothing to do, and no batch without a job"
    assert split_jobs(parsed(WORDS)) == ALL, "what Hydra makes of them is still known"


def test_the_result_of_a_task_is_read_without_raising(capsys):
    assert task_result(JobReturn(status=JobStatus.COMPLETED, _return_value=3)) == 3
    error = ValueError("why")
    assert task_result(JobReturn(status=JobStatus.FAILED, _return_value=error)) is error
    assert capsys.readouterr().err == ""
