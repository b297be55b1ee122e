"""Entries trained anew: what agrees, what does not, and what is refused before anything is trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dd_bench.leaderboards.cli import main as leaderboard
from dd_bench.leaderboards.entries import entry_name
from dd_bench.leaderboards.verified import judge, tolerance, verdicts
from dd_bench.leaderboards.verify import main
from dd_bench.record import Code, load_record

CODE = Code(version="0", numbers=1, revision=None, dirty=None)


def test_the_tolerance_holds_what_it_says():
    """Of 4000 entries of five networks, 99 % hold the mean of two more of the same population."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(4000):
        values = draw.normal(0.7, 0.01, 7)
        low, high = tolerance(list(values[:5]), 2)
        hits += low <= values[5:].mean() <= high
    assert 0.984 < hits / 4000 < 0.996


def test_judging(record):
    entry = record("dm", 10, [[0.70, 0.72, 0.71, 0.73, 0.69]])

    def of(**again):
        return judge(
            entry, {int(k[1:]): v for k, v in again.items()}, CODE, "here", "2026-01-01T00:00:00+00:00"
        )

    assert of(n0=0.70, n1=0.72).same and of(n0=0.70, n1=0.72).verdict == "verified"
    near = of(n0=0.701, n1=0.718)
    assert not near.same and near.verdict == "verified" and "mean 0.7095 of 0.7100" in near.told()
    assert of(n0=0.60, n1=0.61).verdict == "out of tolerance"
    with pytest.raises(ValueError, match="has no network 7"):
        of(n7=0.7)
    with pytest.raises(ValueError, match="no spread"):
        judge(record("dm", 10, [[0.7]]), {0: 0.6}, CODE, "here", "2026")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """An entry of digits, measured here, with its set beside it."""
    import subprocess
    import sys

    root = tmp_path_factory.mktemp("board")
    small = [
        "model.width=8",
        "ipc=1",
        "protocol=dc-300",
        "protocol.recipe.epochs=9",
        "protocol.recipe.milestones=[5]",
    ]
    command = [sys.executable, "-m", "dd_bench", "run", "method=herding", *small, "evaluator.num_networks=3"]
    subprocess.run([*command, f"out={root}", "runtime=one_thread"], check=True, capture_output=True)
    (path,) = (root / "records").glob("*.json")
    assert leaderboard(["add", str(path), "--entries", str(root / "entries"), "--no-baseline"]) == 0
    (entry,) = (root / "entries").glob("*.json")
    return entry, root / "sets"


@pytest.fixture
def own(board, tmp_path):
    """A copy of it, to change."""
    shutil.copytree(board[1], tmp_path / "sets")
    (tmp_path / "entries").mkdir()
    return Path(shutil.copy(board[0], tmp_path / "entries")), tmp_path / "sets"


def changed(entry: Path, **values) -> Path:
    """The entry with other fields, under the name that fits its new digest: what a forger would hand in."""
    record = load_record(entry).model_copy(update=values)
    entry.unlink()
    return record.save(entry.parent / entry_name(record))


def test_an_entry_is_verified(own, capsys, monkeypatch):
    entry, sets = own
    assert main([str(entry), "--sets", str(sets), "--networks", "2"]) == 0
    out = capsys.readouterr().out
    assert "as it was added" in out and "verified: 2 networks trained anew" in out
    ((digest, told),) = verdicts(entry.parent.parent / "verified").items()
    assert digest == load_record(entry).digest and told.startswith("verified")


def test_scores_that_are_too_good(own, capsys):
    """The name fits the content: only training anew can tell."""
    entry, sets = own
    better = [s.model_copy(update={"value": min(1.0, s.value + 0.3)}) for s in load_record(entry).scores]
    entry = changed(entry, scores=better)
    assert main([str(entry), "--sets", f"file://{sets}"]) == 1
    assert "out of tolerance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("score", r"was changed after it was added"),
        ("config", r"was changed after it was added"),
        ("tensor", r"synthetic.safetensors was changed or cut"),
        ("card", r"is not in "),
        ("ipc", r"the entry says ipc 2, its set .* 1"),
    ],
)
def test_what_was_tampered_with_is_refused(own, capsys, what, message):
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
        entry = changed(entry, ipc=2)
    assert main([str(entry), "--sets", str(sets)]) == 1
    err = capsys.readouterr().err
    assert "refused" in err and re.search(message, err), err
    assert not (entry.parent.parent / "verified").exists(), "nothing was trained"


def test_checked_and_not_trained(own, capsys):
    entry, _ = own
    assert main([str(entry), "--networks", "0"]) == 0
    assert "trained anew" not in capsys.readouterr().out
