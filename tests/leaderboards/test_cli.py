import json
import subprocess
import sys

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.entries import check_record, entry_name, load_entries
from dd_bench.records.record import Score, load_record

from .conftest import composed


@pytest.fixture
def saved(record, tmp_path):
    """Save a record as a run does, outside the entries."""

    def save(name="record.json", **kwargs):
        configuration = composed(kwargs.get("method", "random"))
        r = record(**{"method": "random", "ipc": 1, "sets": [[0.7, 0.71]]} | configuration | kwargs)
        return r, r.save(tmp_path / name)

    return save


def test_add_check_build(saved, tmp_path, capsys):
    (a, first), (b, second) = saved("a.json", method="dc"), saved("b.json")
    entries, out = tmp_path / "entries", tmp_path / "out"
    assert main(["add", str(first), str(second), "--entries", str(entries)]) == 0
    assert sorted(p.name for p in entries.glob("fashion_mnist/*")) == sorted([entry_name(a), entry_name(b)])
    assert entry_name(a) == f"fashion_mnist-dc-ipc1-{a.digest[:16]}.json"
    assert (entries / "fashion_mnist" / entry_name(a)).read_bytes() == a.text().encode()
    assert main(["check", "--entries", str(entries)]) == 0
    assert main(["build", "--entries", str(entries), "--out", str(out)]) == 0
    assert "| dc" in next(out.glob("fashion*/*.md")).read_text()
    assert "index.md" in capsys.readouterr().out


def test_build_from_the_records_of_runs(saved, tmp_path, monkeypatch, capsys):
    """Outside a clone, before anything was added: the tables are written next to the records."""
    monkeypatch.chdir(tmp_path)
    saved("runs/records/0123456789abcdef.json", method="dc")
    for hidden in ("._x.json", ".ipynb_checkpoints/a-checkpoint.json"):
        (tmp_path / "runs" / "records" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / "records" / hidden).write_text("{}")
    assert main(["build", "--entries", "runs/records"]) == 0
    assert "| dc" in next((tmp_path / "runs" / "tables").glob("fashion*/*.md")).read_text()
    saved("runs/entries/0123456789abcdef.json", method="dc")
    assert main(["check", "--entries", "runs/entries"]) == 1, "a record is not an entry"
    assert "leaderboard add" in capsys.readouterr().err
    assert main(["build", "--entries", "nowhere"]) == 1
    assert "dd-bench leaderboard build --entries runs/records" in capsys.readouterr().err


def test_build_reports_files_of_earlier_builds_and_keeps_them(put, record, tmp_path, capsys):
    entries, out = put(record("dc", 1, [[0.7, 0.71]])), tmp_path / "out"
    out.mkdir()
    (out / "old--board.md").write_text("old")
    assert main(["build", "--entries", str(entries), "--out", str(out)]) == 0
    assert "old--board.md was written by an earlier build" in capsys.readouterr().out
    assert (out / "old--board.md").exists()


def test_a_modified_entry_is_rejected(put, record, tmp_path, capsys):
    entries = put(record("dc", 1, [[0.7, 0.71]]), record("dm", 1, [[0.6, 0.61]]))
    [path] = entries.glob("*-dm-*.json")
    path.write_text(path.read_text().replace("0.61", "0.99"))
    for verb in (["check"], ["build", "--out", str(tmp_path / "out")]):
        assert main([*verb, "--entries", str(entries)]) == 1
        message = capsys.readouterr().err
        assert path.name in message and "changed" in message and "-dc-" not in message
    assert not (tmp_path / "out").exists()


def test_the_message_names_all_invalid_files(put, record, capsys):
    entries = put(record("dc", 1, [[0.7, 0.71]]))
    (entries / "notes.json").write_text("{}")
    (entries / "x-0123456789abcdef.json").write_text("{}")
    assert main(["check", "--entries", str(entries)]) == 1
    message = capsys.readouterr().err
    assert "notes.json" in message and "x-0123456789abcdef.json" in message


def test_duplicates_are_rejected(saved, put, record, tmp_path, capsys):
    entries = put(record("dc", 1, [[0.7, 0.71]], key="same"))
    _, again = saved("again.json", method="dc", sets=[[0.8, 0.81]], key="same")
    assert main(["add", str(again), "--entries", str(entries)]) == 1
    message = capsys.readouterr().err
    assert "again.json" in message and "fashion_mnist-dc-ipc1-" in message and "same experiment" in message
    assert len(list(entries.iterdir())) == 1
    put(record("dc", 1, [[0.8, 0.81]], key="same"))
    with pytest.raises(ValueError, match="same experiment"):
        load_entries(entries)


def test_add_adds_all_records_or_none(saved, tmp_path, capsys):
    (_, good), (_, bad) = saved("good.json"), saved("bad.json", sets=[[70.5, 71.0]])
    assert main(["add", str(good), str(bad), "--entries", str(tmp_path / "entries")]) == 1
    assert "not a percentage" in capsys.readouterr().err
    assert not (tmp_path / "entries").exists()


def test_a_value_that_is_not_finite_is_rejected(saved, tmp_path, capsys):
    _, path = saved()
    path.write_text(path.read_text().replace("0.71", "NaN"))
    assert main(["add", str(path), "--entries", str(tmp_path / "entries")]) == 1
    assert "finite" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "not json", json.dumps({"schema_version": 1})])
def test_a_file_that_is_not_a_record_is_rejected(tmp_path, capsys, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert main(["add", str(path), "--entries", str(tmp_path / "entries")]) == 1
    assert "record.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"config": {g: v}}, f"config.{g} must be a mapping, got ")
            for g in ("method", "dataset")
            for v in ([1], "x", 5, None)
        ),
        ({"config": {"teachers": [1]}}, "config.teachers must be a mapping"),
        ({"config": {"teachers": {"a": 5}}}, "config.teachers.a must be a mapping, got 5"),
        ({"config": {"protocol": {"labels": 5}}}, "config.protocol.labels must be a mapping, got 5"),
        ({"method": "random, hard labels"}, "is reserved for a row of boards with soft labels"),
        ({"set_digests": ["a" * 64, "b" * 64]}, "must have one set digest for each of its 1 sets, got 2"),
    ],
)
def test_records_with_an_invalid_structure_are_rejected(record, changes, message):
    with pytest.raises(ValueError, match=message):
        check_record(record("dc", 1, [[0.5]]).model_copy(update=changes))


def deep(levels):
    return {"a": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "changes",
    [
        {"peak_memory": {"a": 10**400}}, {"stored_bytes": {"a": -5}}, {"teacher_forwards": -5}, {"created": "<b>"},
        {"ipc": 10**30}, {"seconds": {"a": -1.0}}, {"seconds": {"a": 1.7e308}}, {"method": "é" * 201},
        {"config": deep(60)}, {"notes": ["\ud800"]}, {"sizes": {"a": 2**63}},
    ],
)  # fmt: skip
def test_impossible_values_are_rejected(record, tmp_path, changes):
    data = json.loads(record("dc", 1, [[0.5]]).text()) | changes
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"r\.json is not a (valid )?record"):
        load_record(tmp_path / "r.json")


def test_records_that_a_board_cannot_show_are_rejected(record):
    with pytest.raises(ValueError, match="must have a value of its main metric"):
        check_record(record("dc", 1, []))
    twice = [Score(metric="accuracy", value=0.5, set=0, network=0, seed=s) for s in (0, 1)]
    with pytest.raises(ValueError, match="second value of this network"):
        check_record(record("dc", 1, [], scores=twice))
    check_record(record("dc", 1, [], status="skipped"))
    check_record(record("dc", 1, [[70.5]], main_metric="loss"))


def test_entry_names_contain_no_path_separator(record):
    name = entry_name(record("../../x", 1, [[0.5]], dataset="a/b c"))
    assert "/" not in name and not name.startswith(".")


def test_the_message_for_a_missing_folder_has_a_command(tmp_path, capsys):
    assert main(["check", "--entries", str(tmp_path / "none")]) == 1
    assert "dd-bench leaderboard add" in capsys.readouterr().err


def test_leaderboards_do_not_import_torch():
    code = "import sys, dd_bench.leaderboards.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
