"""The command of an entry composes to the configuration of the entry."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict

from dd_bench.leaderboards.core.commands import distill_command, evaluate_command, run_command
from dd_bench.leaderboards.core.entries import has_stored_precision, load_entries, probed_backbone
from dd_bench.leaderboards.core.row_labels import record_labels
from dd_bench.records.identity import identify
from dd_bench.records.overrides import to_override
from dd_bench.records.record import load_record

ENTRIES = Path(__file__).parents[2] / "leaderboards" / "entries"
NOT_COMPARED = (
    "out", "cache", "logger", "log_every", "checkpoint_seconds", "runtime", "set", "teachers", "hyperparameters",
)  # fmt: skip
ADDED_LATER = {
    "dataset.label_noise",
    "dataset.label_noise_kind",
    "method.frequency",
    "method.experts.precision",
    "evaluator.equal",
    "method.feature_network",
    "method.inner",
    "method.lr_net",
    "method.structure",
    "method.lr_edges",
    "method.edge_hidden",
    "method.threshold",
}
"""Keys added after some entries were measured, with defaults that keep the old behaviour."""


def flat(values, path=""):
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from flat(value, here)
        else:
            yield here, value


def composed(command):
    words = shlex.split(command)
    assert words[0] == "dd-bench"
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        cfg = compose("config", words[2:], return_hydra_config=True)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return identify(OmegaConf.to_container(cfg, resolve=True), choices)


def one_of_each():
    """Entries that have every method, protocol and evaluator, the longest commands first."""
    known, chosen = set(), []
    records = [load_record(path) for path in sorted(ENTRIES.glob("*/*.json"))]
    # A quantised set is made by `dd-bench quantise` before its command.
    records = [record for record in records if not has_stored_precision(record)]
    # The command does not make an imported set, or a set that was made with another backbone than the probed one.
    records = [r for r in records if run_command(r) and not (probed_backbone(r) and r.config.get("set"))]
    for record in sorted(records, key=lambda r: -len(run_command(r))):
        new = {
            record.method,
            f"protocol {record.protocol.name}",
            f"evaluator {record.evaluator.partition('(')[0]}",
        }
        if not new <= known:
            chosen.append(record)
            known |= new
    return chosen


@pytest.mark.parametrize("record", one_of_each(), ids=lambda r: f"{r.method}-{r.protocol.name}-{r.evaluator}")
def test_a_command_composes_to_the_configuration_of_its_entry(record):
    config = composed(run_command(record))
    actual, expected = (
        dict(flat({k: v for k, v in c.items() if k not in NOT_COMPARED})) for c in (config, record.config)
    )
    differing = {k for k in actual | expected if actual.get(k) != expected.get(k)}
    assert differing <= ADDED_LATER and not differing & expected.keys()
    if record.teachers:
        assert [t.name for t in record.teachers] == list(config["teachers"])
        teachers = {t.name: record.config["teachers"][t.name] for t in record.teachers}
        assert dict(flat(config["teachers"])) == dict(flat(teachers))


@pytest.mark.slow
def test_all_commands_compose():
    """Sets that others made have no command."""
    for record in load_entries(ENTRIES):
        if command := run_command(record):
            composed(command)
        else:
            assert record.method.endswith("-authors") and record.config.get("set")


def test_the_command_that_evaluates_a_set():
    record = next(r for r in load_entries(ENTRIES) if r.method == "mtt")
    command = evaluate_command(record, "sets/a b")
    assert "'set=sets/a b'" in command and "method" not in command
    assert composed(command)["protocol"] == record.config["protocol"]


def test_a_method_that_is_not_shipped_has_no_command(record):
    assert run_command(record("mine", 10, [[0.5]])) is None
    assert distill_command({"method": {}, "model": {}}, "mine", "digits") is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        1e-7,
        "word",
        "a/b.c",
        "with space",
        'a "quoted" \\ text',
        "null",
        "1",
        "a,b",
        [1, [2, "x y"]],
        {"a": 1},
    ],
)
def test_hydra_parses_an_override_to_the_same_value(value):
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        cfg = compose("config", [f"+method.extra={to_override(value, 'x')}"])
    found = cfg.method.extra
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value


def test_a_command_names_the_base_set():
    entry = load_record(next((ENTRIES / "fashion_mnist").glob("*-infer-ipc10-*.json")))
    base = {"set": "random-fashion_mnist-ipc7-0123", "digest": "ab" * 32, "method": "random", "ipc": 7}
    on_base = entry.model_copy(update={"config": {**entry.config, "base": base}})
    assert "base=random-fashion_mnist-ipc7-0123" in shlex.split(run_command(on_base))
    assert sorted(record_labels([on_base, entry.model_copy(update={"key": "own"})]).values()) == [
        "infer (base=none)",
        "infer (base=random abababab)",
    ]
    for wrong in ({"set": "../a"}, {}, "a"):
        with pytest.raises(ValueError, match="base must be the description of a set"):
            run_command(entry.model_copy(update={"config": {**entry.config, "base": wrong}}))
