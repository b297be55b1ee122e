"""Fuzz pull, import and export: they end with a message, write only what they were asked to, and lose no files.

Every case changes the files of a set, of released tensors or of a released folder in one or two ways, and runs the
command. An exception that the command does not convert to a message fails the test. All files outside the target must
be unchanged, and a target that existed must be unchanged too.
"""

import io
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dd_bench.hub.export import export_command
from dd_bench.hub.hub import pull_command
from dd_bench.hub.importers.command import import_command
from dd_bench.hub.png_folder import png_folder
from dd_bench.pipeline import compose
from dd_bench.synthetic import storage
from dd_bench.synthetic.images import ImageSet

from .test_fuzz import FAST, SLOW, Content, changed_bytes, changed_json, limited, sealed

Files = dict[str, bytes]
CASES = ["set", "tensors", "pairs", "folder"]
CHANGES = [
    "bytes",
    "bytes",
    "tensor",
    "tensor",
    "json",
    "cut",
    "empty",
    "remove",
    "rename",
    "copy",
    "link",
    "folder",
]
NAMES = ["x.pt", "9_x/0.png", "labels.csv", ".hidden", "a b.png", "card.json", "provenance.json"]
TARGETS = ["../../user/notes.txt", "/dev/zero", "missing", ".", "/dev/stdin"]


@pytest.fixture(scope="module")
def sources(real_set, tmp_path_factory) -> dict[str, Files]:
    """A saved set, released tensors in one and in two files, and an exported folder, as files by path."""
    folder = tmp_path_factory.mktemp("sources")
    real = real_set()
    index = torch.cat([real.train.of_class(c)[:2] for c in range(3)])
    soft = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    syn = ImageSet.of(real, real.train.pixels(index).byte(), soft, "pixel")
    values = {
        "method": "x",
        "ipc": 2,
        "seed": 0,
        "config": {},
        "citations": ["a"],
        "provenance": {"notes": ["b"]},
    }
    storage.save(syn, folder / "set", real=real, **values)
    png_folder(syn, folder / "folder")
    pair = [real.train.inputs(index), real.train.labels[index]]
    for name, content in {
        "tensors/data.pt": {"data": [pair]},
        "pairs/x.pt": pair[0],
        "pairs/y.pt": pair[1],
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(content, folder / name)
    return {case: contents(folder / case) for case in CASES}


@pytest.fixture(scope="module", autouse=True)
def one_dataset(real_set):
    """Load the blobs for every dataset, without Hydra. The folder of pulled sets is restored at the end."""
    real, before = real_set(), os.environ["DD_BENCH_HOME"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "load_real_set", lambda _: (real, {"name": "blobs"}))
        yield
    assert os.environ["DD_BENCH_HOME"] == before


def contents(folder: Path) -> Files:
    """Return all files below a folder, and the targets of links, by their relative paths."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()).encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


FORMATS = {"json": ".json", "tensor": ".pt"}
DTYPES = [
    getattr(torch, name)
    for name in ["uint8", "int8", "int64", "float16", "bfloat16", "float64", "bool", "complex64"]
]
VALUES = [0, 1, -1, 2, 255, 256, 2**31, 2**62, -(2**63), 0.5, 1e30, float("nan"), float("inf")]


@st.composite
def changed_tensor(draw, content: bytes) -> bytes:
    """Change the dtype, the shape or a value of one tensor in a file of torch.save, or replace what contains it."""
    try:
        data = torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # changed before
        return content
    parent, key = {"all": data}, "all"
    while not isinstance(parent[key], torch.Tensor):
        parent, key = (
            parent[key],
            "data" if isinstance(parent[key], dict) else draw(st.integers(0, len(parent[key]) - 1)),
        )
    x = parent[key]
    how = draw(st.sampled_from(["dtype", "shape", "value", "rows", "other", "sparse", "repeat"]))
    if how == "dtype":
        x = x.to(draw(st.sampled_from(DTYPES)))
    elif how == "shape":
        shapes = [(-1,), (1, -1), (len(x), -1), x.shape[::-1], (*x.shape, 1), (0, *x.shape[1:])]
        shape = draw(st.sampled_from(shapes))
        x = x[:0] if 0 in shape else x.reshape(shape)
    elif how == "value":
        x = x.clone()
        with suppress(RuntimeError, ValueError, OverflowError):
            x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(st.sampled_from(VALUES))
    elif how == "rows":
        x = draw(st.sampled_from([x[:-1], torch.cat([x, x]), x.flip(0), x[:1]])).clone()
    elif how == "sparse":
        x = x.to_sparse()
    elif how == "repeat":
        x = x[:1].expand(10**7, *x.shape[1:])
    parent[key] = draw(st.sampled_from([None, 1, "x", [x], {"data": x}, [x, x]])) if how == "other" else x
    file = io.BytesIO()
    torch.save(
        data if key != "all" else parent["all"], file, _use_new_zipfile_serialization=draw(st.booleans())
    )
    return file.getvalue()


@st.composite
def changed_files(draw, files: Files) -> tuple[Files, dict[str, str]]:
    """Change one or two files of a folder. Return the files, and the targets of symbolic links, by path."""
    files, links = {name: Content(content) for name, content in files.items()}, {}
    for _ in range(draw(st.integers(1, 2))):
        if not files:
            break
        name = draw(st.sampled_from(sorted(files)))
        other = draw(
            st.sampled_from(
                [*sorted(files), "x.pt", "9_x/0.png", "labels.csv", ".hidden", "a b.png", "../up"]
            )
        )
        how = draw(
            st.sampled_from(
                ["bytes", "bytes", "json", "cut", "empty", "remove", "rename", "copy", "link", "folder"]
            )
        )
        if how == "bytes" or FORMATS.get(how, Path(name).suffix) != Path(name).suffix:
            files[name] = Content(draw(changed_bytes(files[name])))
        elif how == "tensor":
            files[name] = Content(draw(changed_tensor(files[name])))
        elif how == "json":
            files[name] = Content(draw(changed_json(files[name])))
        elif how == "cut":
            files[name] = Content(files[name][: draw(st.integers(0, len(files[name])))])
        elif how == "empty":
            files[name] = Content(b"")
        elif how in ("remove", "rename", "link", "folder"):
            content = files.pop(name)
            if how == "rename":
                files[other] = content
            elif how == "link":
                links[name] = draw(st.sampled_from(TARGETS))
            elif how == "folder":
                files[f"{name}/x"] = content
        else:
            files[other] = files[name]
    return files, links


def write(folder: Path, files: Files, links: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue  # a file has the name of a folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in links.items():
        if not os.path.lexists(folder / name) and (folder / name).parent.is_dir():
            (folder / name).symlink_to(target)


def commands(case: str, folder: Path, to: Path, flags: list[str]) -> list[tuple]:
    """Return the commands that read a changed folder, with their arguments."""
    if case == "set":
        return [
            (pull_command, [f"file://{folder}", "--to", str(to)]),
            (export_command, [str(folder), str(to)]),
        ]
    sources = {
        "tensors": [str(folder / "data.pt")],
        "pairs": [str(folder / "x.pt"), "--labels", str(folder / "y.pt")],
        "folder": [str(folder)],
    }
    return [
        (import_command, [*sources[case], *flags, "dataset=x", "--ipc", "2", "--name", "x", "--to", str(to)])
    ]


def check(
    case: str, files: Files, links: dict[str, str], existing: bool, flags: list[str], root: Path
) -> bool:
    """Run the commands on changed files and compare all files before and after. Return whether one has succeeded."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "user").mkdir(parents=True)
    (root / "user" / "notes.txt").write_text("my notes")
    write(root / "in" / "x", files, links)
    succeeded = False
    for number, (command, arguments) in enumerate(
        commands(case, root / "in" / "x", root / "out" / "to", flags)
    ):
        to = root / "out" / "to"
        shutil.rmtree(root / "out", ignore_errors=True)
        to.parent.mkdir()
        if existing:
            to.mkdir()
            (to / "mine.txt").write_text(str(number))
        before = contents(root)
        with limited(64 << 20):
            code = command(arguments)
        after = contents(root)
        assert code in (0, 1)
        created = {n for n in after if n.startswith("out/to/")} if code == 0 and not existing else set()
        # an interrupted download continues from here
        partial = {n for n in after if command is pull_command and n.startswith("out/.") and ".partial/" in n}
        assert {n: after[n] for n in after if n not in created | partial} == before
        assert not (code == 0 and existing) and (code == 1) != bool(created)
        succeeded |= code == 0
        if code == 0 and command is not export_command:
            storage.load(to)
    return succeeded


def fuzz(sources: dict[str, Files], root: Path, how, capsys) -> dict[bool, int]:
    counts = {True: 0, False: 0}

    @how
    @given(st.data())
    def run(data):
        case = data.draw(st.sampled_from(CASES))
        files, links = data.draw(changed_files(sources[case]))
        if case == "set" and "card.json" in files and data.draw(st.booleans()):
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # the card is not valid any more
                files = sealed(files)
        flags = data.draw(
            st.sampled_from([[], [], [], ["--logits"], ["--background", "white"], ["--index", "0"]])
        )
        counts[check(case, files, links, data.draw(st.sampled_from([False] * 4 + [True])), flags, root)] += 1
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err and len(printed.err) < 20_000

    run()
    return counts


@pytest.mark.parametrize("case", CASES)
def test_unchanged_files_are_accepted(sources, tmp_path, case):
    assert check(case, sources[case], {}, False, [], tmp_path / "x")
    assert not check(case, sources[case], {}, True, [], tmp_path / "x")


def test_changed_files(sources, tmp_path, capsys):
    assert fuzz(sources, tmp_path / "x", FAST, capsys)[False] > 10


@pytest.mark.slow
def test_many_changed_files(sources, tmp_path, capsys):
    counts = fuzz(sources, tmp_path / "x", SLOW, capsys)
    assert min(counts.values()) > 20, counts
