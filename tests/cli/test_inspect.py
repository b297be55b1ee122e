"""The commands list, show and verify, and their exit status 1 if a file is damaged."""

from importlib.resources import files
from pathlib import Path

import pytest


@pytest.fixture
def finished(dd_bench, small, tmp_path):
    """The folder of a set and the record of a finished run."""
    assert dd_bench("run", *small("random")).code == 0
    (folder,), (record,) = (tmp_path / "runs" / "sets").iterdir(), (tmp_path / "runs" / "records").iterdir()
    return folder, record


def test_list(dd_bench):
    full = dd_bench("list")
    assert full.code == 0
    for text in ("method=", "dataset=", "protocol=", "dm", "digits", "Gradient matching"):
        assert text in full.text
    one = dd_bench("list", "protocol")
    assert one.code == 0 and "dc-300" in one.text and "digits" not in one.text
    experiments = Path(str(files("dd_bench.conf") / "experiment"))
    assert f"experiment= ({len(list(experiments.rglob('*.yaml')))})" in full.text
    nested = len(list((experiments / "paper" / "cifar10").iterdir()))
    assert "paper/cifar10/ " in full.text and "paper/cifar10/mtt_ipc1" not in full.text
    assert f"{nested} more; to list them: dd-bench list experiment" in full.text
    one = dd_bench("list", "experiment")
    assert "paper/cifar10/mtt_ipc1 " in one.text and "MTT on CIFAR-10, IPC 1" in one.text
    assert dd_bench("list", "experiments").text == one.text
    wrong = dd_bench("list", "metods")
    assert wrong.code == 2 and "got 'metods'. Did you mean method?" in wrong.text


def test_show(dd_bench, finished):
    folder, record = finished
    for path, words in (
        (folder, ["random on digits, ipc=1", "images 640, labels 80"]),
        (record, ["status", "done", "accuracy", "2 networks on 1 set", "hard"]),
        (record.parent, ["random", "digits", "720"]),
    ):
        done = dd_bench("show", str(path))
        assert done.code == 0, done.text
        assert all(word in done.text for word in words), done.text
        assert "…" not in done.text, "paths must not be shortened, so that they can be copied"


def test_show_set_with_incomplete_provenance(dd_bench, finished):
    (finished[0] / "provenance.json").write_text('{"seconds": {"distill": 1.5}}')
    assert dd_bench("show", str(finished[0])).code == 0


@pytest.mark.parametrize("path", ["nowhere", "nowhere.json", "."])
def test_show_missing_path(dd_bench, path):
    done = dd_bench("show", path)
    assert done.code == 1 and "error:" in done.text and "Traceback" not in done.text


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("path", ["nowhere", "no/where.json", "x/entries/a-dm-ipc1-0123456789abcdef.json"])
def test_missing_file(dd_bench, command, path):
    done = dd_bench(command, path)
    assert done.code == 1 and done.text == f"error: {path} does not exist\n"


def test_verify(dd_bench, finished):
    folder, record = finished
    done = dd_bench("verify", str(folder), str(record))
    assert done.code == 0 and done.text.count("ok ") == 2
    data = bytearray((folder / "preview.png").read_bytes())
    data[50] ^= 1
    (folder / "preview.png").write_bytes(data)
    record.write_text(record.read_text().replace('"done"', '"perfect"'))
    done = dd_bench("verify", str(record), str(folder))
    assert done.code == 1 and "Traceback" not in done.text
    assert done.text.count("damaged:") == 2 and "preview.png was modified or truncated" in done.text


def test_brackets_are_not_markup(dd_bench, tmp_path):
    """As markup, `pip install 'dd-bench[graph]'` would lose the extra."""
    folder = tmp_path / "sets[red]"
    folder.mkdir()
    assert "sets[red] is not a synthetic set" in dd_bench("verify", str(folder)).text
