"""No home folder, and folders that cannot be written: a command works, or has a message without a traceback.

The superuser can write to folders whose permissions forbid it. Therefore these tests use paths below a regular file,
and replace `os.mkdir` by a function that fails as on a read-only file system.
"""

import errno
import os
import pwd
from pathlib import Path

import pytest
import torch
from PIL import Image

from dd_bench.runtime.cache import user_folder
from dd_bench.synthetic import storage
from dd_bench.synthetic.images import ImageSet

QUICK = ["method=random", "ipc=1", "model.width=8", "protocol.recipe.epochs=1", "evaluator.num_networks=1"]
RUN = ["run", *QUICK, "runtime=plain"]
SWEEP = ["run", "-m", *RUN[1:]]
TEACHER = ["method=sre2l", "teachers.convnet_bn.recipe.epochs=1", "teachers.convnet_bn.model.width=8"]


@pytest.fixture
def homeless(monkeypatch):
    """Unset HOME for a user without an entry in the password database, as in many containers."""

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("DD_BENCH_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """Make the working folder read-only."""
    original = os.mkdir

    def mkdir(path, *arguments, **options):
        if Path(path).absolute().is_relative_to(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return original(path, *arguments, **options)

    def build():
        monkeypatch.setattr(os, "mkdir", mkdir)

    return build


@pytest.fixture
def syn(blobs, tmp_path):
    return storage.save(
        ImageSet.coreset(blobs, torch.arange(3)), tmp_path / "set", real=blobs, method="random", ipc=1, seed=0,
        config={}, citations=["Authors"], provenance={},
    )  # fmt: skip


def test_commands_without_a_home_folder(dd_bench, homeless, syn, tmp_path):
    assert dd_bench(*RUN).code == 0
    assert dd_bench(*SWEEP, "ipc=1,2").code == 0
    assert "2 of 2 done" in dd_bench("progress").text
    assert dd_bench("show", "runs/records").code == 0
    assert dd_bench("leaderboard", "check", "--entries", "runs/records").code in (0, 1)
    assert dd_bench("leaderboard", "build", "--entries", "runs/records", "--out", "tables").code == 0
    torch.save([torch.rand(10, 1, 8, 8), torch.arange(10)], "images.pt")
    to = ["--name=mine", "--ipc=1", "--pixels", "--citation=Authors", "--to=imported"]
    imported = dd_bench("import", "images.pt", "dataset=digits", *to)
    assert imported.code == 0, imported.text
    for command in (["pull", f"file://{syn}"], [*RUN, "dataset=mnist", "dataset.root='~/mnist'"]):
        done = dd_bench(*command)
        assert done.code == 1 and "HOME is not set" in done.text and "Traceback" not in done.text, done.text


def test_images_without_a_home_folder(dd_bench, homeless, tmp_path):
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / "data" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / part / name / "0.png")
    dataset = ["dataset=image_folder", "dataset.root=data", "dataset.name=mine"]
    done = dd_bench(*RUN, *dataset)
    assert done.code == 1 and "HOME is not set. Use DD_BENCH_HOME=FOLDER" in done.text, done.text
    os.environ["DD_BENCH_HOME"] = str(tmp_path / "home")
    assert user_folder() == tmp_path / "home"
    assert "HOME is not set" not in dd_bench(*RUN, *dataset).text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*RUN, "out=file/x"], "out=FOLDER for sets and records"),
        ([*RUN, "out=file"], "out=FOLDER for sets and records"),
        ([*SWEEP, "out=file/x"], "out=FOLDER for sets and records"),
        (["distill", *QUICK, "out=file/x"], "out=FOLDER for sets and records"),
        ([*RUN, *TEACHER, "cache=file/x"], "cache=FOLDER for teachers and experts"),
        (["progress", "file/x"], "file/x contains no sweep"),
        (["leaderboard", "build", "--entries", "entries", "--out", "file/x"], "Not a directory: 'file/x"),
        (["leaderboard", "check", "--entries", "file/x"], "file/x"),
        (["pull", "file://SET", "--to", "file/x"], "Not a directory: 'file"),
        (
            ["import", "images.pt", "dataset=digits", "--name=mine", "--ipc=1", "--pixels", "--to=file/x"],
            "file",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_folders_below_a_file(dd_bench, tmp_path, syn, command, message):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "entries").mkdir()
    torch.save([torch.rand(10, 1, 8, 8), torch.arange(10)], tmp_path / "images.pt")
    done = dd_bench(*(word.replace("SET", str(syn)) for word in command))
    text = f"{done.text} {done.code if isinstance(done.code, str) else ''}"
    assert done.code not in (0, None) and message in text and "Traceback" not in text, text
    assert (tmp_path / "file").read_text() == "kept"


def test_read_only_working_folder(dd_bench, read_only, syn, tmp_path):
    torch.save([torch.rand(10, 1, 8, 8), torch.arange(10)], tmp_path / "images.pt")
    (tmp_path / "entries").mkdir()
    read_only()
    for command in (
        RUN,
        SWEEP,
        ["pull", f"file://{syn}", "--to", "pulled"],
        ["leaderboard", "build", "--entries", "entries", "--out", "tables"],
        ["import", "images.pt", "dataset=digits", "--name=mine", "--ipc=1", "--pixels", "--to=imported"],
    ):
        done = dd_bench(*command)
        assert done.code == 1 and "Read-only file system" in done.text, done.text
        assert "Traceback" not in done.text, done.text
    assert "contains no sweep" in dd_bench("progress").text
    assert not (tmp_path / "runs").exists()
