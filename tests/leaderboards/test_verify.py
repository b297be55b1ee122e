"""Verification of entries: verdicts on retrained networks, and checks before anything is trained."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dd_bench.leaderboards.admission.verify import _runtime_overrides, main
from dd_bench.leaderboards.cli import main as leaderboard
from dd_bench.leaderboards.core.entries import entry_name
from dd_bench.leaderboards.core.verified import compare_retrained, save_verdict, tolerance, verdicts
from dd_bench.leaderboards.website.site import build_site
from dd_bench.records.record import Code, load_record

from .conftest import table

CODE = Code(version="0", numbers=1, revision=None, dirty=None)


def test_coverage_of_the_tolerance():
    """For 99 % of 4000 entries with five networks, the mean of two more networks is within the tolerance."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(4000):
        values = draw.normal(0.7, 0.01, 7)
        low, high = tolerance(list(values[:5]), 2)
        hits += low <= values[5:].mean() <= high
    assert 0.984 < hits / 4000 < 0.996


def test_verdicts(record):
    entry = record("dm", 10, [[0.70, 0.72, 0.71, 0.73, 0.69]])

    def of(*again, entry=entry):
        return compare_retrained(entry, dict(enumerate(again)), CODE, "here", "2026-01-01T00:00:00+00:00")

    assert of(0.70, 0.72, 0.71, 0.73, 0.69).verdict == "verified"
    assert of(0.705, 0.722, 0.713, 0.725, 0.692).verdict == "verified"
    assert of(0.65, 0.66, 0.64, 0.65, 0.66).verdict == "out of tolerance"
    some = of(0.70, 0.72)
    assert some.same and some.verdict == "verified in part" and "2 of 5 networks" in some.summary()
    assert of(0.701, 0.718).verdict == "too few networks to tell"
    assert of(0.50, 0.51).verdict == "out of tolerance"
    with pytest.raises(ValueError, match="has no network 5"):
        of(*[0.7] * 6)
    with pytest.raises(ValueError, match="with at least 2 networks, got 1"):
        of(0.6, entry=record("dm", 10, [[0.7]]))


def test_mark_on_a_board(record):
    """Cores and processor count, the precision does not."""
    entry = record("dm", 10, [[0.7, 0.72]], device="AMD EPYC(R), 2 cores (bf16 networks, 1 worker(s))")
    same = compare_retrained(
        entry, {0: 0.7}, CODE, "AMD EPYC(R), 2 cores (fp32 networks, 2 worker(s))", "2026"
    )
    other = compare_retrained(
        entry, {0: 0.7}, CODE, "AMD EPYC(R), 4 cores (bf16 networks, 1 worker(s))", "2026"
    )
    assert [v.mark(entry) for v in (same, other)] == ["verified in part", "verified in part, other machine"]


def test_mark_on_the_site(record, tmp_path):
    """The page of the board has the words of the mark, without a character that is replaced on pages."""
    entry = record("dm", 10, [[0.7, 0.72]], device="here")
    entry.save(tmp_path / "entries" / entry_name(entry))
    save_verdict(compare_retrained(entry, {0: 0.7}, CODE, "elsewhere", "2026"), tmp_path / "verified")
    build_site(tmp_path / "entries", tmp_path, tmp_path / "sets", tmp_path / "out")
    (page,) = (tmp_path / "out" / "boards").glob("*.html")
    (row,) = table(page)["rows"]
    marks = [(cell["text"], cell.get("sub")) for cell in row["cells"] if isinstance(cell, dict)]
    assert ("verified in part", "other machine") in marks
    assert "\ufffd" not in page.read_text()


def test_forged_values_are_not_verified(record):
    """Networks that were not retrained may be forged, and a forged spread does not widen the tolerance."""
    lifted = record("dm", 10, [[0.70, 0.72, 0.99, 0.99, 0.99]])
    first = compare_retrained(lifted, {0: 0.70, 1: 0.72}, CODE, "here", "2026")
    assert first.verdict == "verified in part"
    every = compare_retrained(lifted, dict(enumerate([0.70, 0.72, 0.71, 0.73, 0.69])), CODE, "here", "2026")
    assert every.verdict == "out of tolerance"


def test_a_verdict_is_not_replaced_by_one_on_fewer_networks(record, tmp_path):
    values = [0.70, 0.72, 0.71, 0.73, 0.69]

    def of(*again):
        entry = record("dm", 10, [values])
        return compare_retrained(entry, dict(enumerate(again)), CODE, "here", "2026-01-01T00:00:00+00:00")

    long, short, far = of(*values), of(*values[:2]), of(0.5, 0.51)
    path = save_verdict(short, tmp_path)
    assert save_verdict(long, tmp_path) == path and verdicts(tmp_path)[long.entry] == long
    for other in (short, far):
        with pytest.raises(
            FileExistsError,
            match=r"was not replaced\. It contains the verdict verified: 5 of 5 .*add --replace",
        ):
            save_verdict(other, tmp_path)
    save_verdict(far, tmp_path, replace=True)
    with pytest.raises(FileExistsError, match=r"was not replaced\. It contains the verdict out of tolerance"):
        save_verdict(long, tmp_path)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """An entry of digits from a short run, and its folder of sets."""
    import dd_bench

    root = tmp_path_factory.mktemp("board")
    small = [
        "model.width=8",
        "ipc=1",
        "protocol=dc-300",
        "protocol.recipe.epochs=9",
        "protocol.recipe.milestones=[5]",
    ]
    networks = ["method=herding", "method.teacher.epochs=1", "evaluator.num_networks=3", "runtime=one_thread"]
    dd_bench.run([*networks, *small, f"out={root}"])
    (path,) = (root / "records").glob("*.json")
    assert leaderboard(["add", str(path), "--entries", str(root / "entries"), "--no-baseline"]) == 0
    (entry,) = (root / "entries").glob("*/*.json")
    return entry, root / "sets"


@pytest.fixture
def own(board, tmp_path):
    """A copy of the entry and its sets that a test may change."""
    shutil.copytree(board[1], tmp_path / "sets")
    folder = tmp_path / "entries" / "digits"
    folder.mkdir(parents=True)
    return Path(shutil.copy(board[0], folder)), tmp_path / "sets"


def test_the_cheapest_entries(own, record, capsys):
    """Verified entries are omitted, unless the verdict covers fewer networks than requested."""
    entry, sets = own
    cost = load_record(entry).seconds["evaluate"]
    many = record("dm", 1, [[0.5], [0.6]], config={"evaluator": {"num_networks": 1}}, set_digests=["a", "b"])
    many.save(entry.parent / entry_name(many))
    how = ["--cheapest", "5", "--list", "--sets", str(sets), str(entry.parents[1])]

    def listed(*more):
        assert main([*how, *more]) == 0
        return capsys.readouterr().out

    assert f"{cost:6.0f} s  {entry.name}" in listed()
    assert f"{cost / 3:6.0f} s  {entry.name}" in listed("--networks", "1")
    assert "1 with several sets, which are not stored" in listed()
    values = [s.value for s in load_record(entry).scores]
    verdict = compare_retrained(load_record(entry), {0: values[0]}, CODE, "here", "2026")
    save_verdict(verdict, entry.parents[2] / "verified")
    assert "0 entries to verify, 1 verified before" in listed("--networks", "1")
    assert entry.name in listed()
    assert "1 measured on this kind of machine" in listed("--other-machines")


def test_wrong_options(capsys):
    for words, message in (
        (["x", "--cheapest", "0"], "--cheapest must be an integer >= 1"),
        (["x", "--list"], "require --cheapest"),
        (["x", "--cheapest", "1", "--sets", "s3://b/sets"], "requires a folder of sets"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err


def test_retraining_has_the_threads_of_the_entry(record):
    entry = record(
        "dm", 1, [[0.5]], config={"runtime": {"threads": 1, "workers": "auto"}}, device="A (fp32 networks, 1)"
    )
    assert _runtime_overrides(entry) == ["runtime.threads=1", "runtime.precision=fp32"]
    assert _runtime_overrides(entry.model_copy(update={"device": "A (bf16 networks, 1)"})) == [
        "runtime.threads=1"
    ]


def changed(entry: Path, **values) -> Path:
    """Change fields of an entry and rename it to match its new digest, as a forger would."""
    record = load_record(entry).model_copy(update=values)
    entry.unlink()
    return record.save(entry.parent / entry_name(record))


@pytest.mark.slow
def test_an_entry_is_verified(own, capsys, monkeypatch):
    entry, sets = own
    monkeypatch.chdir(entry.parent)
    assert main([entry.name, "--sets", str(sets)]) == 0
    out = capsys.readouterr().out
    assert "unchanged since it was added" in out
    assert "verified: 3 of 3 networks retrained, values identical" in out
    ((digest, verdict),) = verdicts(entry.parents[2] / "verified").items()
    assert digest == load_record(entry).digest and verdict.verdict == "verified"


@pytest.mark.slow
def test_forged_scores_are_not_verified(own, capsys):
    """The file name matches the content, so only retraining can detect the change."""
    entry, sets = own
    better = [s.model_copy(update={"value": min(1.0, s.value + 0.3)}) for s in load_record(entry).scores]
    entry = changed(entry, scores=better)
    assert main([str(entry), "--sets", f"file://{sets}"]) in (0, 1)
    out = capsys.readouterr().out
    assert "out of tolerance" in out or "too few networks to tell" in out


def test_a_record_cannot_call_code(own, capsys, tmp_path):
    """Hydra would call a nested `_target_`, so such a record is rejected before the configuration is composed."""
    entry, sets = own
    data = load_record(entry).config
    evil = {"_target_": "pathlib.Path.touch", "_args_": [str(tmp_path / "called")]}
    for group, key in (("dataset", "x"), ("model", "y"), ("protocol", "z")):
        config = data | {group: data[group] | {key: {"a": evil}}}
        entry = changed(entry, config=config)
        assert main([str(entry), "--sets", str(sets)]) == 1
        assert "is not a configuration key" in capsys.readouterr().err
    entry = changed(entry, config=data | {"dataset": data["dataset"] | {"root": "a", "q": "${oc.env:HOME}"}})
    assert main([str(entry), "--sets", str(sets)]) == 1
    assert "must be a plain value without interpolation" in capsys.readouterr().err
    target = data["dataset"] | {"_target_": "pathlib.Path.touch"}
    entry = changed(entry, config=data | {"dataset": target})
    assert main([str(entry), "--sets", str(sets)]) == 1
    assert "a record must not select the code that is run" in capsys.readouterr().err
    assert not (tmp_path / "called").exists()


def test_options_of_entries_are_rejected_for_records(own, tmp_path, capsys):
    shutil.copy(own[0], tmp_path / "record.json")
    assert main([str(tmp_path / "record.json")]) == 0
    assert main([str(tmp_path / "record.json"), "--networks", "0"]) == 1
    assert "is not an entry, so its set was not checked" in capsys.readouterr().err


def test_an_entry_with_several_sets_is_not_retrained(own, capsys):
    draws = [s.model_copy(update={"set": i}) for i in (0, 1) for s in load_record(own[0]).scores]
    entry = changed(own[0], set_digests=["a" * 64, "b" * 64], scores=draws)
    assert main([str(entry)]) == 1, "retraining was requested but is not possible"
    out = capsys.readouterr().out
    assert "the entry has 2 sets, which are not stored. This command distils and evaluates them again:" in out
    assert "dd-bench run method=herding" in out
    assert main([str(entry), "--networks", "0"]) == 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("score", r"was changed after it was added"),
        ("config", r"was changed after it was added"),
        ("tensor", r"synthetic.safetensors was modified or truncated"),
        (
            "card",
            r"is not in .*card\.json has the same method, dataset and IPC, so this card may have been changed",
        ),
        ("ipc", r"ipc of the set .* must be 2 as in the entry, got 1"),
        ("data", r"dataset_digest of the set .* must be aaaa"),
    ],
)
def test_modified_files_are_rejected(own, capsys, what, message):
    import re

    entry, sets = own
    (folder,) = sets.iterdir()
    data = json.loads(entry.read_text())
    if what == "score":
        data["scores"][0]["value"] = 0.99
        entry.write_text(json.dumps(data))
    elif what == "config":
        data["config"]["protocol"]["recipe"]["epochs"] = 10
        entry.write_text(json.dumps(data))
    elif what == "tensor":
        content = bytearray((folder / "synthetic.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "synthetic.safetensors").write_bytes(bytes(content))
    elif what == "card":
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"seed": 7}))
    else:
        entry = changed(entry, **({"ipc": 2} if what == "ipc" else {"real_digest": "a" * 64}))
    assert main([str(entry), "--sets", str(sets)]) == 1
    err = capsys.readouterr().err
    assert "failed: " in err and re.search(message, err), err
    assert not (entry.parents[2] / "verified").exists(), "nothing was trained"


def test_zero_networks_only_checks_the_files(own, capsys):
    entry, sets = own
    assert main([str(entry), "--networks", "0"]) == 0
    out = capsys.readouterr().out
    assert "retrained" not in out and "not checked: set" in out
    assert main([str(entry), "--networks", "0", "--sets", str(sets)]) == 0
    assert "ok  " + str(next(sets.iterdir())) in capsys.readouterr().out
    (next(sets.iterdir()) / "synthetic.safetensors").write_bytes(b"another")
    assert main([str(entry), "--networks", "0", "--sets", str(sets)]) == 1
    assert "was modified or truncated" in capsys.readouterr().err
    renamed = entry.rename(entry.with_name("best.json"))
    assert main([str(renamed), "--networks", "0"]) == 1
    assert "the name of an entry must end in" in capsys.readouterr().err


def test_only_the_location_of_the_data_can_be_overridden(own, monkeypatch, capsys):
    entry, sets = own
    words = []

    def run(command, **_):
        words.extend(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("subprocess.run", run)
    where = ["dataset.root=my data", "dataset.download=true"]
    assert main([str(entry), "--sets", str(sets), *where]) == 1
    assert words[-2:] == ['dataset.root="my data"', "dataset.download=true"]
    for word in ("dataset.preprocess=zca", "protocol=quick", "dataset=cifar10"):
        with pytest.raises(SystemExit):
            main([str(entry), "--sets", str(sets), word])
        assert f"{word} is not a path" in capsys.readouterr().err
