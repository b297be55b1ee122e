"""Fuzz sets, cards, records and entries: a changed file is refused with a user error, or is read exactly as it is.

Every case changes one file in one way. The readers may raise ValueError or OSError and nothing else, must end, and may
allocate at most the bytes stated in the card plus 64 MiB. What they accept must equal the content of the file.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import struct
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from dd_bench.cli import inspect
from dd_bench.data.graphs import GraphShape
from dd_bench.data.preprocess import ZCA
from dd_bench.leaderboards.admission import consistency, submission
from dd_bench.leaderboards.core import commands
from dd_bench.leaderboards.core.entries import Track, check_record, entry_path, load_entry
from dd_bench.leaderboards.website.sets import copy_sets
from dd_bench.records.record import load_record
from dd_bench.runtime import untrusted
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import Provenance, read_provenance
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, TreeSet
from dd_bench.synthetic.images import ImageSet

ALLOWED = 64 << 20
"""Bytes that a reader may allocate in addition to the bytes stated in the card."""
TENSORS, TRANSFORM, CARD, PROVENANCE = (
    "synthetic.safetensors",
    "preprocess.safetensors",
    "card.json",
    "provenance.json",
)
ENTRIES = Path(__file__).parents[2] / "leaderboards" / "entries"

FAST = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SLOW = settings(FAST, max_examples=1000, derandomize=False, print_blob=True)


@pytest.fixture(scope="module")
def sets(real_set, motifs, tmp_path_factory) -> list[dict[str, bytes]]:
    """The files of one small set of each kind, by name."""
    blobs = real_set()
    white = real_set(preprocess=ZCA.fit(blobs.train.pixels(torch.arange(len(blobs.train))) / 255))
    draw = torch.Generator().manual_seed(0)
    soft = torch.rand(3, 3, generator=draw).softmax(1)
    pictures = torch.rand(3, 1, 16, 16, generator=draw)
    index = torch.tensor([int(blobs.train.of_class(c)[0]) for c in range(3)])
    trees = TreeSet(
        nodes=torch.tensor([[0], [1], [2], [1]]),
        parents=torch.tensor([0, 0, 1, 3]),
        edge_labels=torch.zeros(4, 0, dtype=torch.int64),
        degrees=torch.tensor([1, 2, 1, 3]),
        sizes=torch.tensor([3, 1]),
        patterns=torch.tensor([0, 1, 1]),
        pattern_sizes=torch.tensor([2, 1]),
        support=torch.tensor([300, 7]),
        labels=torch.tensor([0, 1]),
        shape=GraphShape((3,), ()),
        class_names=motifs.class_names,
        weighting="loss",
        class_graphs=(400, 9),
    )
    made = [
        ("random", blobs, ImageSet.coreset(blobs, index)),
        ("ncfm", blobs, ImageSet.of(blobs, pictures[..., :8, :8], soft, "unit", 2, lr=0.5)),
        ("mtt", blobs, ImageSet.of(blobs, pictures, torch.arange(3), "input", canvas=2)),
        ("dm", white, ImageSet.of(white, pictures[..., :8, :8], torch.arange(3), "input")),
        ("infer", blobs, CompensatedSet.of(blobs, index, torch.randn(1, 2, 1, 8, 8, generator=draw))),
        ("random", motifs, GraphSet.coreset(motifs, torch.tensor([0, 1]))),
        ("mirage", motifs, trees),
    ]
    found = []
    for i, (method, real, syn) in enumerate(made):
        folder = storage.save(
            syn,
            tmp_path_factory.mktemp("sets") / str(i),
            real=real,
            method=method,
            ipc=4
            if getattr(syn, "canvas", 1) == 2
            else 2
            if real is motifs or isinstance(syn, CompensatedSet)
            else 1,
            seed=0,
            config={
                "method": {"_choice_": method} | syn.decoding(),
                "dataset": {"name": real.name},
                "teachers": {"a": {}, "b": {}},  # as many as compensators
            },
            citations=["Authors"],
            provenance={"seconds": {"distill": 1.5}, "notes": ["slow"]},
        )
        storage.load(folder)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    return found


@pytest.fixture(scope="module")
def entries() -> list[bytes]:
    """Some committed entries."""
    paths = sorted(ENTRIES.glob("*/*.json"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // 8)]]


# Values that replace a part of a JSON file. A string @...@ is replaced by the text between the signs.
VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 2, 300, 2**31, 2**63, 2**64, 10**30, 0.0, 1.0, 0.5, -0.5, 1e308, 1e-320]
    ),
    st.sampled_from(["@NaN@", "@-Infinity@", "@1e999@", "@1.0e0@", '@"\\ud800"@', "@" + "9" * 5000 + "@"]),
    st.sampled_from(["@" + "[" * 200 + "]" * 200 + "@", '@{"a": 1, "a": 2}@', "@[1, ]@", "@@"]),
    st.sampled_from(
        ["", "x", "pixel", "0", "../x", "/etc/passwd", "a\u0000b", "\u202e", "é" * 300, "x" * 10**5]
    ),
    st.sampled_from([[], {}, [[]], [0], [1, 8, 8], {"a": 1}, [None] * 3, {"": {}}, ["x"] * 10**4]),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),  # st.text() computes it slowly
)
KEYS = st.sampled_from(
    ["kind", "name", "canvas", "factor", "whole", "lr", "source", "images", "x", "", "a\nb", "é"]
)


def raw(value) -> str:
    """Return JSON in which strings @...@ are replaced by the text between the signs."""
    return re.sub(r'"@((?:[^"\\]|\\.)*)@"', lambda match: json.loads(f'"{match[1]}"'), json.dumps(value))


class Content(bytes):
    """The content of a file; its text in the report of a failed case is short."""

    def __repr__(self):
        return f"{self[:2000]!r}..."


@st.composite
def changed_json(draw, content: bytes) -> bytes:
    """Change one value of a JSON file: replace, delete, rename, add or repeat it."""
    data = json.loads(content)
    parent, key, value = None, None, data
    while isinstance(value, dict | list) and value and (parent is None or draw(st.integers(0, 3))):
        parent = value
        key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        value = parent[key]
    how = draw(st.sampled_from(["replace", "replace", "delete", "add", "repeat", "number", "bytes"]))
    if how == "bytes":
        return Content(draw(changed_bytes(content)))
    if how == "replace":
        parent[key] = draw(VALUES)
    elif how == "number" and isinstance(value, int | float):
        parent[key] = draw(
            st.sampled_from([value + 1, -value, float(value), str(value), [value], value * 2**40])
        )
    elif how == "delete":
        del parent[key]
    elif how == "add" and isinstance(parent, dict):
        parent[draw(KEYS)] = draw(VALUES)
    elif isinstance(parent, dict):  # the same key again, with the same or with another value
        again = raw(draw(st.one_of(st.just(value), VALUES)))
        text = raw(parent | {key: "@REPEATED@"})
        repeated = text.replace("REPEATED", f"{raw(value)}, {json.dumps(key)}: {again}")
        return Content(raw(data).replace(raw(parent), repeated, 1).encode(errors="surrogatepass"))
    else:
        parent.insert(key, draw(VALUES))
    return Content(raw(data).encode(errors="surrogatepass"))


@st.composite
def changed_bytes(draw, content: bytes) -> bytes:
    """Replace, insert, delete or repeat a few bytes."""
    i = draw(st.integers(0, len(content)))
    n = draw(st.sampled_from([1, 1, 1, 2, 8, 100]))
    new = draw(st.sampled_from([b"", b"\0", b"\xff" * n, b" " * n, content[i : i + n] * 2, b"\0" * n]))
    return content[:i] + new + content[i + (0 if draw(st.booleans()) else n) :]


@st.composite
def changed_header(draw, content: bytes) -> bytes:
    """Change the header of a safetensors file, with correct length and padding."""
    length = struct.unpack("<Q", content[:8])[0]
    header = draw(changed_json(content[8 : 8 + length].rstrip()))
    header += b" " * draw(st.sampled_from([-len(header) % 8, 0, 8 + -len(header) % 8]))
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


@st.composite
def changed_tensors(draw, content: bytes) -> bytes:
    """Write other tensors with the library: one more, one less, or another dtype, shape or value."""
    tensors = from_safetensors(content)
    name = draw(st.sampled_from(sorted(tensors)))
    how = draw(st.sampled_from(["dtype", "shape", "value", "huge", "add", "remove", "metadata", "rows"]))
    t = tensors[name]
    if how == "dtype":
        names = [
            "uint8",
            "int8",
            "int16",
            "int32",
            "int64",
            "float16",
            "bfloat16",
            "float32",
            "float64",
            "bool",
        ]
        tensors[name] = t.to(getattr(torch, draw(st.sampled_from(names))))
    elif how == "shape":
        shapes = [(-1,), (1, -1), (-1, 1), (*t.shape, 1), (1, *t.shape), t.shape[::-1]]
        tensors[name] = t.reshape(draw(st.sampled_from(shapes)))
    elif how in ("value", "huge"):
        values = [0, 1, -1, 2, 255, 2**15 - 1, 2**31 - 1, 2**62, 2**63 - 1, float("nan"), float("inf"), 0.5]
        flat = t.flatten().clone() if how == "value" else t.flatten().to(torch.int64)
        with suppress(RuntimeError, ValueError, OverflowError):
            flat[draw(st.integers(0, len(flat) - 1))] = draw(st.sampled_from(values))
        tensors[name] = flat.view(t.shape)
    elif how == "add":
        tensors[draw(st.sampled_from(["x", "edge_labels", "degrees", "compensators", "é"]))] = t.clone()
    elif how == "remove":
        del tensors[name]
    elif how == "rows":
        tensors[name] = draw(st.sampled_from([t[:-1], t[:0], torch.cat([t, t]), t.flip(0)])).contiguous()
    return to_safetensors(tensors, metadata={"format": "pt"} if how == "metadata" else None)


def sealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Write the correct hashes and stored bytes into the card."""
    card = json.loads(files[CARD])
    card["sha256"] = {name: hashlib.sha256(files[name]).hexdigest() for name in card["sha256"]}
    stated = {}
    for name, prefix in ((TENSORS, ""), (TRANSFORM, "preprocess.")):
        with suppress(Exception):  # a header that the library cannot read keeps the bytes stated before
            tensors = from_safetensors(files[name])
            stated |= {f"{prefix}{k}": v.numel() * v.element_size() for k, v in tensors.items()}
    card["stored_bytes"] = stated or card["stored_bytes"]
    return files | {CARD: Content(json.dumps(card, sort_keys=True, indent=2, ensure_ascii=False).encode())}


@contextmanager
def limited(stated: int):
    """Allow the allocation of `stated` bytes and 64 MiB more, and 60 seconds."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)

    def stop(*_):
        raise AssertionError("the reader did not end within 60 seconds")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + stated + ALLOWED, before[1]))
        yield
    except MemoryError as error:
        raise AssertionError(f"too much memory was needed: {error}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def reject(error: Exception) -> None:
    """Check that an error is not about memory: an allocation within the limit must succeed."""
    text = str(error)
    assert not re.search("enough memory|into memory|allocate", text), text
    assert text and len(text) < 20_000, f"the message has {len(text)} characters"


def read_set(folder: Path, stated: int):
    """Read a set with every reader. Return it if it was accepted."""
    with limited(stated):
        try:
            syn, card = storage.load(folder)
        except ValueError as error:
            reject(error)
            syn = card = None
        read_provenance(folder)
        assert inspect.verify([str(folder)]) == (syn is None)
        inspect.show([str(folder)])
        shutil.rmtree(folder.parent / "site", ignore_errors=True)
        copy_sets(folder.parent, folder.parent / "site", None)
    return syn, card


def check_set(files: dict[str, bytes], folder: Path) -> bool:
    """Write and read the files of a set, and compare an accepted set with them. Return whether it is accepted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    stated = len(files[TENSORS]) + len(files.get(TRANSFORM, b""))
    syn, card = read_set(folder, stated)
    if syn is None:
        return False
    in_card = json.loads(files[CARD])
    assert card.model_dump(mode="json") == in_card
    assert json.dumps(syn.config(), sort_keys=True) == json.dumps(in_card["set"], sort_keys=True)
    assert {n: hashlib.sha256(files[n]).hexdigest() for n in card.sha256} == card.sha256
    assert to_safetensors(syn.tensors()) == files[TENSORS], (
        "the set must contain exactly the tensors in the file"
    )
    assert (to_safetensors(syn.preprocess.tensors()) if TRANSFORM in files else None) == files.get(TRANSFORM)
    assert sum(card.stored_bytes.values()) == sum(
        t.numel() * t.element_size() for t in [*syn.tensors().values(), *syn.preprocess.tensors().values()]
    )
    assert (
        list(syn.class_names) == in_card["class_names"] and syn.preprocess.config() == in_card["preprocess"]
    )
    provenance = read_provenance(folder)
    if provenance:
        assert provenance == json.loads(files[PROVENANCE])
        assert Provenance.model_validate(provenance)
    return True


@st.composite
def changed_set(draw, sets):
    files = draw(st.sampled_from(sets))
    files = {name: Content(content) for name, content in files.items()}
    name = draw(st.sampled_from([TENSORS, TENSORS, TENSORS, CARD, CARD, TRANSFORM, PROVENANCE]))
    name = name if name in files else TENSORS
    if name in (CARD, PROVENANCE):
        return files | {name: Content(draw(changed_json(files[name])))}
    change = draw(st.sampled_from([changed_bytes, changed_header, changed_tensors, changed_tensors]))
    changed = files | {name: Content(draw(change(files[name])))}
    return sealed(changed) if draw(st.integers(0, 4)) else changed


def fuzz_sets(sets, folder, how) -> dict[bool, int]:
    counts = {True: 0, False: 0}

    @how
    @given(st.data())
    def run(data):
        counts[check_set(data.draw(changed_set(sets)), folder / "sets" / "x")] += 1

    run()
    return counts


def check_entry(content: bytes, folder: Path) -> bool:
    """Read a record as a file and as an entry, and run every check of submissions. Return whether it is a record."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"digits-dm-ipc1-{hashlib.sha256(content).hexdigest()[:16]}.json"
    path.write_bytes(content)
    with limited(0):
        try:
            record = load_record(path)
        except ValueError as error:
            reject(error)
            record = None
        for act in (
            lambda: load_entry(path),
            lambda: inspect.show([str(path)]),
            lambda: inspect.verify([str(path)]),
        ):
            with suppress(ValueError):
                act()
        if record is not None:
            check_submission(record, folder)
    path.unlink()
    if record is None:
        return False
    assert record.model_dump(mode="json", exclude_unset=True) == json.loads(content)
    return True


def check_submission(record, folder: Path) -> None:
    try:
        check_record(record)
        Track.of(record), Track.of(record).path, entry_path(record)
        for check in ("check_protocol", "check_complete", "check_configuration", "check_repeats"):
            getattr(consistency, check)(record)
        submission.check_unique_scores([record], [record])
        submission.check_baselines([record], [record])
        submission.check_sets([record], folder)
    except ValueError as error:
        reject(error)
        return
    for command in (
        commands.run_command,
        commands.control_command,
        lambda r: commands.evaluate_command(r, "x"),
    ):
        with suppress(ValueError):
            command(record)


def fuzz_entries(entries, folder, how) -> dict[bool, int]:
    counts = {True: 0, False: 0}

    @how
    @given(st.data())
    def run(data):
        content = data.draw(st.sampled_from(entries))
        counts[check_entry(data.draw(changed_json(content)), folder)] += 1

    run()
    return counts


def test_unchanged_files_are_accepted(sets, entries, tmp_path):
    assert all(check_set(files, tmp_path / "sets" / "x") for files in sets)
    assert all(check_set(sealed(files), tmp_path / "sets" / "x") for files in sets)
    assert all(check_entry(content, tmp_path) for content in entries)


def test_changed_sets(sets, tmp_path):
    assert fuzz_sets(sets, tmp_path, FAST)[False] > 15


def test_changed_entries(entries, tmp_path):
    assert fuzz_entries(entries, tmp_path, FAST)[False] > 10


@pytest.mark.slow
def test_many_changed_sets(sets, tmp_path):
    counts = fuzz_sets(sets, tmp_path, SLOW)
    assert min(counts.values()) > 20, counts


@pytest.mark.slow
def test_many_changed_entries(entries, tmp_path):
    counts = fuzz_entries(entries, tmp_path, SLOW)
    assert min(counts.values()) > 20, counts


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["{},", "[],", '{"a":1},', '"",', '"ab",', '"\U0001f600",', "0.5,", "257,", "[[]],"]
)
def test_json_of_the_maximum_size(sets, entries, tmp_path, piece):
    """JSON that needs much memory, in a field of any content, of a fixed type, and of an unknown name."""
    values = f"[{piece * (untrusted.MAX_JSON // len(piece.encode()) - 20_000)}0]"
    card, record = json.loads(sets[0][CARD]), json.loads(entries[0])
    for data in (
        card | {"set": card["set"] | {"source": "VALUES"}},
        card | {"class_names": "VALUES"},
        card | {"unknown": "VALUES"},
        record | {"scores": "VALUES"},
        record | {"config": "VALUES"},
    ):
        (tmp_path / "card.json").write_bytes(json.dumps(data).replace('"VALUES"', values).encode())
        with (
            limited(0),
            pytest.raises(ValueError, match=r"is not a valid|is damaged|JSON must|is incomplete") as error,
        ):
            storage.load(tmp_path) if "kind" in data else load_record(tmp_path / "card.json")
        reject(error.value)
