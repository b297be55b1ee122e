"""The expert buffer is a valid safetensors file, snapshots are read one at a time, and damage is an error."""

import json
import os
import re
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dd_bench.pipeline.provenance import peak_resident
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.teachers import expert_buffer
from dd_bench.teachers.expert_buffer import FILE, ExpertBuffer, Header

CPU = torch.device("cpu")
EPOCHS = (0, 3, 5)
HEADER = Header(
    experts=2,
    epochs=EPOCHS,
    order=(("conv.weight", (3, 1, 2, 2)), ("classifier.bias", (3,))),
    dtype="float32",
    architecture={"network": "ConvNet", "width": 3},
    real=("digest of é", 60),
    preprocess="digest",
    recipe={"lr": 0.01, "milestones": [3], "gradient_rule": None},
)
HALF = replace(HEADER, dtype="float16")


def numbers(expert, epoch, p=HEADER.p):
    return torch.randn(p, generator=torch.Generator().manual_seed(10 * expert + epoch))


@pytest.fixture
def full(tmp_path):
    """A buffer with all snapshots, written in another order than stored."""

    def make(header=HEADER):
        expert_buffer.create(tmp_path, header)
        for expert in (1, 0):
            for epoch in (3, 0, 5):
                expert_buffer.write(tmp_path, header, expert, epoch, numbers(expert, epoch))
        return tmp_path

    return make


def test_header_sizes():
    assert (HEADER.p, HEADER.size, HALF.size) == (15, 60, 30)


@pytest.mark.parametrize("header", [HEADER, HALF], ids=lambda h: h.dtype)
def test_safetensors_can_read_it(full, header):
    path = full(header) / FILE
    dtype = {"float32": torch.float32, "float16": torch.float16}[header.dtype]
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["parameters"]
        assert file.get_slice("parameters").get_shape() == [2, 3, 15]
        fields = json.loads(file.metadata()["buffer"])
    assert fields == json.loads(json.dumps(header.__dict__)), "the header must have all fields"
    array = load_file(path)["parameters"]
    expected = torch.stack([torch.stack([numbers(i, e) for e in EPOCHS]) for i in range(2)])
    assert array.dtype == dtype and torch.equal(array, expected.to(dtype))
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0, "the array must be aligned"


def test_file_written_by_safetensors(tmp_path):
    """A buffer written from an array in memory."""
    fields = {"buffer": json.dumps(HEADER.__dict__)}
    save_file({"parameters": torch.arange(90.0).view(2, 3, 15)}, tmp_path / FILE, metadata=fields)
    assert ExpertBuffer(tmp_path).header == HEADER
    assert torch.equal(ExpertBuffer(tmp_path).snapshot(1, 3, CPU), torch.arange(60.0, 75.0))


def test_write_and_read(full):
    buffer = ExpertBuffer(full())
    assert buffer.header == HEADER and len(buffer) == 2
    for expert in range(2):
        for epoch in EPOCHS:
            snapshot = buffer.snapshot(expert, epoch, CPU)
            assert snapshot.dtype == torch.float32 and torch.equal(snapshot, numbers(expert, epoch))


def test_all_float32_values_are_exact(tmp_path):
    """Including signed zeros and subnormal and maximal values."""
    info = torch.finfo(torch.float32)
    values = torch.tensor([0.0, -0.0, info.tiny / 2, -info.max, info.eps] * 3)
    expert_buffer.create(tmp_path, HEADER)
    expert_buffer.write(tmp_path, HEADER, 1, 5, values)
    snapshot = ExpertBuffer(tmp_path).snapshot(1, 5, CPU)
    assert torch.equal(snapshot.view(torch.int32), values.view(torch.int32))


def test_half_precision_rounds(full):
    buffer = ExpertBuffer(full(HALF))
    for expert in range(2):
        for epoch in EPOCHS:
            snapshot, expected = buffer.snapshot(expert, epoch, CPU), numbers(expert, epoch)
            assert snapshot.dtype == torch.float32 and torch.equal(snapshot, expected.half().float())
            torch.testing.assert_close(snapshot, expected, rtol=2**-11, atol=2**-25)
            assert not torch.equal(snapshot, expected)


def test_gradients_and_other_dtypes_are_dropped(tmp_path):
    expert_buffer.create(tmp_path, HEADER)
    expert_buffer.write(tmp_path, HEADER, 0, 0, numbers(0, 0).double().requires_grad_())
    snapshot = ExpertBuffer(tmp_path).snapshot(0, 0, CPU)
    assert torch.equal(snapshot, numbers(0, 0)) and not snapshot.requires_grad


def test_snapshot_is_a_copy(full):
    """An in-place change affects neither the file nor later snapshots."""
    buffer = ExpertBuffer(full())
    before = (buffer.path).read_bytes()
    buffer.snapshot(0, 3, CPU).zero_()
    assert torch.equal(buffer.snapshot(0, 3, CPU), numbers(0, 3)) and buffer.path.read_bytes() == before


def large(gigabytes, p=250_000):
    """A header whose array has this size."""
    rows = gigabytes * 2**30 // (4 * p * len(EPOCHS))
    return replace(HEADER, experts=rows, order=(("weight", (p,)),))


def memory_of_one_snapshot(folder, header):
    """Write and read the last snapshot, and return the increase of peak resident memory."""
    expert_buffer.create(folder, header)
    values = numbers(0, 0, header.p)
    expert_buffer.write(folder, header, header.experts - 1, 5, values)
    path = folder / FILE
    assert path.stat().st_size > header.experts * len(EPOCHS) * header.size
    assert path.stat().st_blocks * 512 < 2**22, "the file must be sparse"
    before = peak_resident()
    buffer = ExpertBuffer(folder)
    assert torch.equal(buffer.snapshot(header.experts - 1, 5, CPU), values)
    assert int(buffer.snapshot(0, 0, CPU).count_nonzero()) == 0
    return peak_resident() - before


def test_only_one_snapshot_is_read(tmp_path):
    assert memory_of_one_snapshot(tmp_path, large(2)) < 32 * 2**20


def test_buffer_larger_than_memory(tmp_path):
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30
    assert memory_of_one_snapshot(tmp_path, large(2 * gigabytes + 1)) < 32 * 2**20


class TestErrors:
    """Each error contains the problem and the file."""

    def test_missing_epoch(self, full):
        buffer = ExpertBuffer(full())
        message = rf"must be one of the epochs stored in {buffer.path}, \[0, 3, 5\], got 4"
        with pytest.raises(ValueError, match=message):
            buffer.snapshot(0, 4, CPU)

    def test_missing_file(self, tmp_path):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(ValueError, match=rf"{folder} is not an expert buffer: {FILE} is missing"):
                ExpertBuffer(folder)
        (tmp_path / FILE).mkdir()
        with pytest.raises(ValueError, match="is not an expert buffer"):
            ExpertBuffer(tmp_path)

    @pytest.mark.parametrize("length", [0, 7, 8, 100, -60, -1])
    def test_truncated_file(self, full, length):
        path = full() / FILE
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=rf"the expert buffer {path} is damaged: "):
            ExpertBuffer(path.parent)

    def test_extended_file(self, full):
        path = full() / FILE
        path.write_bytes(path.read_bytes() + b"0" * 60)
        with pytest.raises(ValueError, match=rf"the expert buffer {path} is damaged: "):
            ExpertBuffer(path.parent)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("experts", 3),
            ("experts", None),
            ("epochs", [0, 3]),
            ("epochs", 5),
            ("order", []),
            ("order", [5]),
            ("order", [["weight", [7]]]),
            ("order", [["weight", "7"]]),
            ("real", []),
            ("real", None),
        ],
    )
    def test_header_that_does_not_match_the_array(self, full, key, value):
        self.open_with_header(full(), {**HEADER.__dict__, key: value})

    @pytest.mark.parametrize("key", [k for k in HEADER.__dict__ if k != "preprocessing"])
    def test_header_with_a_missing_field(self, full, key):
        with pytest.raises(ValueError, match=f"is damaged: '{key}'"):
            self.open_with_header(full(), {k: v for k, v in HEADER.__dict__.items() if k != key}, inner=True)

    def test_header_without_preprocessing_configuration(self, full):
        folder = full()
        fields = {k: v for k, v in HEADER.__dict__.items() if k != "preprocessing"}
        save_file(
            {"parameters": torch.zeros(2, 3, 15)}, folder / FILE, metadata={"buffer": json.dumps(fields)}
        )
        assert ExpertBuffer(folder).header.preprocessing == {}

    @pytest.mark.parametrize("fields", [[], 5, None, "text"])
    def test_header_of_another_type(self, full, fields):
        self.open_with_header(full(), fields)

    def test_another_safetensors_file(self, tmp_path):
        for metadata in (None, {}, {"buffer": "{"}, {"buffer": ""}):
            save_file({"parameters": torch.zeros(2, 3, 15)}, tmp_path / FILE, metadata=metadata)
            with pytest.raises(ValueError, match=rf"the expert buffer {tmp_path / FILE} is damaged: "):
                ExpertBuffer(tmp_path)
        save_file({"weights": torch.zeros(2, 3, 15)}, tmp_path / FILE, metadata=metadata_of(HEADER))
        with pytest.raises(ValueError, match=r"is damaged: .*parameters"):
            ExpertBuffer(tmp_path)

    def test_array_of_another_shape(self, tmp_path):
        for shape in ((2, 3, 3, 5), (6, 15), (2, 3, 14)):
            save_file({"parameters": torch.zeros(shape)}, tmp_path / FILE, metadata=metadata_of(HEADER))
            with pytest.raises(ValueError, match=re.escape(f"'shape': {list(shape)}, ")):
                ExpertBuffer(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
    def test_array_of_another_dtype(self, tmp_path, dtype):
        save_file(
            {"parameters": torch.zeros(2, 3, 15, dtype=dtype)}, tmp_path / FILE, metadata=metadata_of(HEADER)
        )
        with pytest.raises(ValueError, match=rf"the expert buffer {tmp_path / FILE} is damaged: "):
            ExpertBuffer(tmp_path)

    def test_unknown_dtype(self, full):
        self.open_with_header(full(), {**HEADER.__dict__, "dtype": "float64"})

    @staticmethod
    def open_with_header(folder, fields, inner=False):
        tensors = load_file(folder / FILE)
        save_file(tensors, folder / FILE, metadata={"buffer": json.dumps(fields)})
        if inner:
            ExpertBuffer(folder)
            return
        with pytest.raises(ValueError, match=rf"the expert buffer {folder / FILE} is damaged: "):
            ExpertBuffer(folder)


def metadata_of(header):
    return {"buffer": json.dumps(header.__dict__)}


class TestDiverged:
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_non_finite_value(self, full, bad):
        folder = full()
        before, values = (folder / FILE).read_bytes(), numbers(1, 3)
        values[7] = bad
        message = (
            r"expert 1 are not finite as float32 after epoch 3\. Use a smaller method\.experts\.recipe\.lr"
        )
        with pytest.raises(Diverged, match=message):
            expert_buffer.write(folder, HEADER, 1, 3, values)
        assert (folder / FILE).read_bytes() == before, "nothing must be written"

    def test_value_too_large_for_half_precision(self, full):
        folder, values = full(HALF), numbers(0, 5)
        before = (folder / FILE).read_bytes()
        values[0] = 65504.0
        expert_buffer.write(folder, HALF, 0, 5, values)
        assert ExpertBuffer(folder).snapshot(0, 5, CPU)[0] == 65504
        values[0] = 70000.0
        message = r"not finite as float16 after epoch 5\. .*recipe\.lr, or method\.experts\.dtype=float32"
        with pytest.raises(Diverged, match=message):
            expert_buffer.write(folder, HALF, 0, 5, values)
        assert (folder / FILE).read_bytes() != before
        expert_buffer.create(folder, HEADER)
        expert_buffer.write(folder, HEADER, 0, 5, values)
        assert ExpertBuffer(folder).snapshot(0, 5, CPU)[0] == 70000


class TestCreate:
    def test_new_file_contains_zeros(self, tmp_path):
        expert_buffer.create(tmp_path, HEADER)
        assert ExpertBuffer(tmp_path).header == HEADER
        assert int(load_file(tmp_path / FILE)["parameters"].count_nonzero()) == 0

    def test_existing_file_is_kept(self, full):
        path = full() / FILE
        before, inode = path.read_bytes(), path.stat().st_ino
        expert_buffer.create(path.parent, HEADER)
        assert path.read_bytes() == before and path.stat().st_ino == inode

    @pytest.mark.parametrize(
        "other",
        [{"experts": 3}, {"epochs": (0, 3, 6)}, {"dtype": "float16"}, {"recipe": {"lr": 0.02}}],
        ids=lambda o: "".join(o),
    )
    def test_file_with_another_header_is_replaced(self, full, other):
        header = replace(HEADER, **other)
        folder = full()
        expert_buffer.create(folder, header)
        assert ExpertBuffer(folder).header == header
        assert int(load_file(folder / FILE)["parameters"].count_nonzero()) == 0, (
            "the old values must be removed"
        )

    @pytest.mark.parametrize("length", [0, 8, 200])
    def test_file_with_an_incomplete_header_is_replaced(self, full, length):
        path = full() / FILE
        path.write_bytes(path.read_bytes()[:length])
        expert_buffer.create(path.parent, HEADER)
        assert ExpertBuffer(path.parent).header == HEADER

    def test_file_without_array_is_extended(self, full):
        """Killed between writing the header and setting the file size: later writes extend the file."""
        path = full() / FILE
        head = len(path.read_bytes()) - 2 * 3 * HEADER.size
        path.write_bytes(path.read_bytes()[:head])
        full()
        assert torch.equal(ExpertBuffer(path.parent).snapshot(1, 0, CPU), numbers(1, 0))


WRITER = """
import torch
from pathlib import Path
from dd_bench.teachers.expert_buffer import ExpertBuffer, write
folder = Path(folder)
header = ExpertBuffer(folder).header
rows = {e: torch.randn(header.p, generator=torch.Generator().manual_seed(10 + e)) for e in header.epochs}
(folder / "ready").touch()
for _ in range(300):
    for epoch, values in rows.items():
        write(folder, header, 1, epoch, values)
"""


def test_processes_write_at_the_same_time(tmp_path, fork):
    header = replace(HALF, order=(("weight", (10007,)),))  # not a multiple of a page
    expert_buffer.create(tmp_path, header)
    other = fork(WRITER, folder=str(tmp_path))
    while not (tmp_path / "ready").exists():
        assert other.poll() is None, (tmp_path / "printed.txt").read_text()
        time.sleep(0.001)
    rows = {e: numbers(0, e, header.p) for e in EPOCHS}
    for _ in range(300):
        for epoch, values in rows.items():
            expert_buffer.write(tmp_path, header, 0, epoch, values)
    assert other.wait(timeout=60) == 0, (tmp_path / "printed.txt").read_text()
    buffer = ExpertBuffer(tmp_path)
    for expert in range(2):
        for epoch in EPOCHS:
            expected = numbers(expert, epoch, header.p).half().float()
            assert torch.equal(buffer.snapshot(expert, epoch, CPU), expected)
