"""Keys: what a set and a record depend on, and the keys of committed entries."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dd_bench.cli.sweeps import config_digest
from dd_bench.leaderboards.core.commands import run_command
from dd_bench.leaderboards.core.entries import load_entry
from dd_bench.pipeline import provenance
from dd_bench.pipeline.compose import RunConfig, compose
from dd_bench.pipeline.keys import Keys, record_key
from dd_bench.pipeline.report import Outcome
from dd_bench.runtime.torch_flags import read_flags

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"


@pytest.fixture(scope="module")
def experiment():
    return compose(RunConfig.of(["method=random", "ipc=1", "dataset=digits", "runtime=plain"]))


def with_runtime(experiment, **changes) -> Keys:
    return replace(experiment.keys, runtime=replace(experiment.runtime, **changes))


class TestDeviceAndPrecision:
    def runtimes(self, experiment):
        """The kinds of device and precisions that a machine can have, on one machine."""
        yield from (with_runtime(experiment, precision=p) for p in ("fp32", "bf16"))
        cuda = torch.device("cuda:1")
        yield from (with_runtime(experiment, device=cuda, precision=p) for p in ("fp32", "tf32", "bf16"))

    def test_a_record_answers_for_one_kind_of_device_and_precision(self, experiment):
        found = {k.record(["a set"], experiment.protocol, 0) for k in self.runtimes(experiment)}
        inputs = {k.record_inputs(["a set"], experiment.protocol, 0) for k in self.runtimes(experiment)}
        assert len(found) == 5 and len(inputs) == 1
        other_gpu = with_runtime(experiment, device=torch.device("cuda:0"), precision="bf16")
        assert other_gpu.record(["a set"], experiment.protocol, 0) in found

    @pytest.mark.parametrize(("teachers", "different"), [(False, 3), (True, 5)])
    def test_sets_depend_on_what_changes_their_numbers(self, experiment, teachers, different):
        """Without teachers, distillation is in float32 under bf16 too. TF32 changes all numbers."""
        found = {k.synthetic_set(teachers, 1, 0, 0) for k in self.runtimes(experiment)}
        assert len(found) == different

    def test_keys_of_teachers(self, experiment):
        found = [json.dumps(k.runtime.identity()) for k in self.runtimes(experiment)]
        assert len(set(found)) == 5
        assert found[0] == '{"autocast": false, "device": "cpu"}', "unchanged, so cached teachers are found"


def test_a_committed_entry_has_the_key_of_its_run():
    """A repeated run finds it, and links with its old key lead to it."""
    paths = (LEADERBOARDS / "entries" / "digits").glob("digits-random-ipc1-*.json")
    (entry,) = (e for e in map(load_entry, paths) if e.protocol.name == "dc-300")
    command = shlex.split(run_command(entry))
    precision = "bf16" if "(bf16 " in entry.device else "fp32"
    run = compose(RunConfig.of([w for w in command if "=" in w] + [f"runtime.precision={precision}"]))
    sets = [run.set_key(i) for i in range(run.num_sets)]
    assert run.record_key(sets) == entry.key == record_key(run.old_record_key(sets), "cpu", precision)
    migrated = json.loads((LEADERBOARDS / "migrated_keys.json").read_text())
    assert migrated["record keys"][run.old_record_key(sets)] == entry.key
    assert not set(migrated["record keys"]) & set(migrated["record keys"].values()), "no chains"


def test_a_record_with_an_old_key_is_reported(experiment, tmp_path, monkeypatch, messages):
    """It is not used. A warning names it before the networks are trained again."""
    monkeypatch.setattr(experiment, "out", tmp_path)
    outcome = Outcome(provenance.Stages(torch.device("cpu"))).finish("skipped", "not measured")
    monkeypatch.setattr("dd_bench.pipeline.experiment.measure", lambda *_: outcome)
    record, path = experiment.record(["a set"], list)
    assert not [m for m in messages if "before device" in m]
    old = tmp_path / "records" / f"{experiment.old_record_key(['a set'])}.json"
    path.rename(old)
    experiment.record(["a set"], list)
    (message,) = [m for m in messages if f"{old} was written before device and precision" in m]
    assert record.key in message


def test_environment_of_a_record(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "out", tmp_path)
    record, _ = experiment.skipped("k", "no reason")
    found = record.environment
    assert (found.device, found.precision, found.devices, found.processes) == ("cpu", "fp32", 1, 1)
    assert found.torch == torch.__version__ and found.flags == read_flags() and found.driver is None
    torch.backends.cudnn.benchmark = True  # a method changes a flag: the record has what was used
    try:
        assert provenance.environment(experiment.runtime).flags["backends.cudnn.benchmark"] is True
    finally:
        torch.backends.cudnn.benchmark = False


def test_only_missing_depends_on_the_device_and_the_precision(monkeypatch):
    """A job that a CPU has finished is missing on a machine with a GPU, also with `runtime.device=auto`."""

    def digest(*overrides):
        return config_digest(RunConfig.of(["dataset=digits", *overrides]).cfg)

    auto, explicit = digest(), digest("runtime.device=cpu", "runtime.precision=fp32")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("dd_bench.runtime.precision.has_bf16", lambda device: True)
    assert digest() != auto
    assert digest("runtime.device=cpu", "runtime.precision=fp32") == explicit
    assert digest("runtime.device=nonsense") != digest("runtime.device=other"), "the job prints the message"


def test_a_statement_about_hyperparameters_is_in_the_record_but_in_no_key(experiment):
    stated = compose(
        RunConfig.of(["method=random", "ipc=1", "dataset=digits", "runtime=plain", "hyperparameters=test"])
    )
    assert (experiment.config["hyperparameters"], stated.config["hyperparameters"]) == (None, "test")
    for run in (experiment, stated):
        assert run.keys.synthetic_set(False, 1, 0, 0) == experiment.keys.synthetic_set(False, 1, 0, 0)
        assert run.keys.record(["a set"], run.protocol, 0) == experiment.keys.record(
            ["a set"], run.protocol, 0
        )
    with pytest.raises(ValueError, match="hyperparameters must be paper, untuned, test or null, got 'tuned'"):
        compose(RunConfig.of(["method=random", "dataset=digits", "runtime=plain", "hyperparameters=tuned"]))
