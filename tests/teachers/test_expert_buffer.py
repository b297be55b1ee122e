"""The expert buffer: any safetensors reader reads it, reading a snapshot reads only that, and damage is an error."""

import json
import os
import re
import subprocess
import sys
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
    """A buffer with every snapshot written, in no particular order."""

    def make(header=HEADER):
        expert_buffer.create(tmp_path, header)
        for expert in (1, 0):
            for epoch in (3, 0, 5):
                expert_buffer.write(tmp_path, header, expert, epoch, numbers(expert, epoch))
        return tmp_path

    return make


def test_the_sizes_of_a_header():
    assert (HEADER.p, HEADER.size, HALF.size) == (15, 60, 30)


@pytest.mark.parametrize("header", [HEADER, HALF], ids=lambda h: h.dtype)
def test_safetensors_reads_it(full, header):
    path = full(header) / FILE
    dtype = {"float32": torch.float32, "float16": torch.float16}[header.dtype]
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["parameters"]
        assert file.get_slice("parameters").get_shape() == [2, 3, 15]
        fields = json.loads(file.metadata()["buffer"])
    assert fields == json.loads(json.dumps(header.__dict__)), "the whole header"
    whole = load_file(path)["parameters"]
    wanted = torch.stack([torch.stack([numbers(i, e) for e in EPOCHS]) for i in range(2)])
    assert whole.dtype == dtype and torch.equal(whole, wanted.to(dtype))
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0, "the numbers are aligned"


def test_safetensors_writes_it(tmp_path):
    """A buffer made elsewhere, from an array in memory."""
    fields = {"buffer": json.dumps(HEADER.__dict__)}
    save_file({"parameters": torch.arange(90.0).view(2, 3, 15)}, tmp_path / FILE, metadata=fields)
    assert ExpertBuffer(tmp_path).header == HEADER
    assert torch.equal(ExpertBuffer(tmp_path).snapshot(1, 3, CPU), torch.arange(60.0, 75.0))


def test_what_is_written_comes_back(full):
    found = ExpertBuffer(full())
    assert found.header == HEADER and len(found) == 2
    for expert in range(2):
        for epoch in EPOCHS:
            back = found.snapshot(expert, epoch, CPU)
            assert back.dtype == torch.float32 and torch.equal(back, numbers(expert, epoch))


def test_to_the_last_bit(tmp_path):
    """Signed zeros, the smallest and the largest float32 too."""
    info = torch.finfo(torch.float32)
    values = torch.tensor([0.0, -0.0, info.tiny / 2, -info.max, info.eps] * 3)
    expert_buffer.create(tmp_path, HEADER)
    expert_buffer.write(tmp_path, HEADER, 1, 5, values)
    back = ExpertBuffer(tmp_path).snapshot(1, 5, CPU)
    assert torch.equal(back.view(torch.int32), values.view(torch.int32))


def test_half_precision_rounds(full):
    found = ExpertBuffer(full(HALF))
    for expert in range(2):
        for epoch in EPOCHS:
            back, wanted = found.snapshot(expert, epoch, CPU), numbers(expert, epoch)
            assert back.dtype == torch.float32 and torch.equal(back, wanted.half().float())
            torch.testing.assert_close(back, wanted, rtol=2**-11, atol=2**-25)
            assert not torch.equal(back, wanted)


def test_a_graph_and_another_dtype_are_left_behind(tmp_path):
    expert_buffer.create(tmp_path, HEADER)
    expert_buffer.write(tmp_path, HEADER, 0, 0, numbers(0, 0).double().requires_grad_())
    back = ExpertBuffer(tmp_path).snapshot(0, 0, CPU)
    assert torch.equal(back, numbers(0, 0)) and not back.requires_grad


def test_a_snapshot_is_a_copy(full):
    """Who steps on it in place changes neither the file nor the next one who asks."""
    found = ExpertBuffer(full())
    before = (found.path).read_bytes()
    found.snapshot(0, 3, CPU).zero_()
    assert torch.equal(found.snapshot(0, 3, CPU), numbers(0, 3)) and found.path.read_bytes() == before


def large(gigabytes, p=250_000):
    """A header whose array takes that much."""
    rows = gigabytes * 2**30 // (4 * p * len(EPOCHS))
    return replace(HEADER, experts=rows, order=(("weight", (p,)),))


def read_one_of(folder, header):
    """Writes and reads the last snapshot; returns what that added to the peak of resident memory."""
    expert_buffer.create(folder, header)
    values = numbers(0, 0, header.p)
    expert_buffer.write(folder, header, header.experts - 1, 5, values)
    path = folder / FILE
    assert path.stat().st_size > header.experts * len(EPOCHS) * header.size
    assert path.stat().st_blocks * 512 < 2**22, "the file is sparse: nothing but what was written is stored"
    before = peak_resident()
    found = ExpertBuffer(folder)
    assert torch.equal(found.snapshot(header.experts - 1, 5, CPU), values)
    assert int(found.snapshot(0, 0, CPU).count_nonzero()) == 0
    return peak_resident() - before


def test_one_snapshot_is_read_and_not_the_file(tmp_path):
    assert read_one_of(tmp_path, large(2)) < 32 * 2**20


def test_a_buffer_may_be_larger_than_the_memory(tmp_path):
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**30
    assert read_one_of(tmp_path, large(2 * gigabytes + 1)) < 32 * 2**20


class TestRefusals:
    """Each error names the problem and the file."""

    def test_an_epoch_that_is_not_stored(self, full):
        found = ExpertBuffer(full())
        message = rf"must be one of those in {found.path}, \[0, 3, 5\], got 4"
        with pytest.raises(ValueError, match=message):
            found.snapshot(0, 4, CPU)

    def test_no_file(self, tmp_path):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(ValueError, match=rf"{folder} is not an expert buffer: {FILE} is missing"):
                ExpertBuffer(folder)
        (tmp_path / FILE).mkdir()
        with pytest.raises(ValueError, match="is not an expert buffer"):
            ExpertBuffer(tmp_path)

    @pytest.mark.parametrize("length", [0, 7, 8, 100, -60, -1])
    def test_a_file_that_was_cut(self, full, length):
        path = full() / FILE
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=rf"the expert buffer {path} is damaged: "):
            ExpertBuffer(path.parent)

    def test_a_file_that_grew(self, full):
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
    def test_a_header_that_is_not_of_the_array(self, full, key, value):
        self.changed(full(), {**HEADER.__dict__, key: value})

    @pytest.mark.parametrize("key", [k for k in HEADER.__dict__ if k != "preprocessing"])
    def test_a_header_that_leaves_something_out(self, full, key):
        with pytest.raises(ValueError, match=f"is damaged: '{key}'"):
            self.changed(full(), {k: v for k, v in HEADER.__dict__.items() if k != key}, inner=True)

    def test_a_header_without_the_preprocessing_configuration(self, full):
        folder = full()
        fields = {k: v for k, v in HEADER.__dict__.items() if k != "preprocessing"}
        save_file(
            {"parameters": torch.zeros(2, 3, 15)}, folder / FILE, metadata={"buffer": json.dumps(fields)}
        )
        assert ExpertBuffer(folder).header.preprocessing == {}

    @pytest.mark.parametrize("fields", [[], 5, None, "text"])
    def test_a_header_of_another_type(self, full, fields):
        self.changed(full(), fields)

    def test_another_safetensors_file(self, tmp_path):
        for metadata in (None, {}, {"buffer": "{"}, {"buffer": ""}):
            save_file({"parameters": torch.zeros(2, 3, 15)}, tmp_path / FILE, metadata=metadata)
            with pytest.raises(ValueError, match=rf"the expert buffer {tmp_path / FILE} is damaged: "):
                ExpertBuffer(tmp_path)
        save_file({"weights": torch.zeros(2, 3, 15)}, tmp_path / FILE, metadata=metadata_of(HEADER))
        with pytest.raises(ValueError, match=r"is damaged: .*parameters"):
            ExpertBuffer(tmp_path)

    def test_an_array_of_other_dimensions(self, tmp_path):
        for shape in ((2, 3, 3, 5), (6, 15), (2, 3, 14)):
            save_file({"parameters": torch.zeros(shape)}, tmp_path / FILE, metadata=metadata_of(HEADER))
            with pytest.raises(ValueError, match=re.escape(f"'shape': {shape}}}")):
                ExpertBuffer(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
    def test_an_array_of_another_dtype(self, tmp_path, dtype):
        save_file(
            {"parameters": torch.zeros(2, 3, 15, dtype=dtype)}, tmp_path / FILE, metadata=metadata_of(HEADER)
        )
        with pytest.raises(ValueError, match=rf"the expert buffer {tmp_path / FILE} is damaged: "):
            ExpertBuffer(tmp_path)

    def test_a_dtype_that_there_is_not(self, full):
        self.changed(full(), {**HEADER.__dict__, "dtype": "float64"})

    @staticmethod
    def changed(folder, fields, inner=False):
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
    def test_a_number_that_is_not_finite(self, full, bad):
        folder = full()
        before, values = (folder / FILE).read_bytes(), numbers(1, 3)
        values[7] = bad
        message = (
            r"expert 1 is not finite as float32 after epoch 3\. Use a smaller method\.experts\.recipe\.lr"
        )
        with pytest.raises(Diverged, match=message):
            expert_buffer.write(folder, HEADER, 1, 3, values)
        assert (folder / FILE).read_bytes() == before, "and nothing is written"

    def test_a_number_too_large_for_half_precision(self, full):
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
    def test_it_lays_out_zeros(self, tmp_path):
        expert_buffer.create(tmp_path, HEADER)
        assert ExpertBuffer(tmp_path).header == HEADER
        assert int(load_file(tmp_path / FILE)["parameters"].count_nonzero()) == 0

    def test_what_is_written_stays(self, full):
        path = full() / FILE
        before, inode = path.read_bytes(), path.stat().st_ino
        expert_buffer.create(path.parent, HEADER)
        assert path.read_bytes() == before and path.stat().st_ino == inode

    @pytest.mark.parametrize(
        "other",
        [{"experts": 3}, {"epochs": (0, 3, 6)}, {"dtype": "float16"}, {"recipe": {"lr": 0.02}}],
        ids=lambda o: "".join(o),
    )
    def test_a_file_of_another_header_is_replaced(self, full, other):
        header = replace(HEADER, **other)
        folder = full()
        expert_buffer.create(folder, header)
        assert ExpertBuffer(folder).header == header
        assert int(load_file(folder / FILE)["parameters"].count_nonzero()) == 0, (
            "its numbers are of something else"
        )

    @pytest.mark.parametrize("length", [0, 8, 200])
    def test_one_that_was_killed_in_its_header_is_replaced(self, full, length):
        path = full() / FILE
        path.write_bytes(path.read_bytes()[:length])
        expert_buffer.create(path.parent, HEADER)
        assert ExpertBuffer(path.parent).header == HEADER

    def test_one_that_was_killed_after_its_header_grows(self, full):
        """Between the header and the truncate: the numbers that are written lengthen it."""
        path = full() / FILE
        head = len(path.read_bytes()) - 2 * 3 * HEADER.size
        path.write_bytes(path.read_bytes()[:head])
        full()
        assert torch.equal(ExpertBuffer(path.parent).snapshot(1, 0, CPU), numbers(1, 0))


WRITER = """
import sys, torch
from pathlib import Path
from dd_bench.teachers.expert_buffer import ExpertBuffer, write
folder = Path(sys.argv[1])
header = ExpertBuffer(folder).header
rows = {e: torch.randn(header.p, generator=torch.Generator().manual_seed(10 + e)) for e in header.epochs}
print("ready", flush=True)
for _ in range(300):
    for epoch, values in rows.items():
        write(folder, header, 1, epoch, values)
print("done", flush=True)
sys.stdin.readline()
"""


def test_processes_write_their_rows_at_once(tmp_path):
    header = replace(HALF, order=(("weight", (10007,)),))  # no multiple of a page
    expert_buffer.create(tmp_path, header)
    other = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "ready\n"
    mine = {e: numbers(0, e, header.p) for e in EPOCHS}
    for _ in range(300):
        for epoch, values in mine.items():
            expert_buffer.write(tmp_path, header, 0, epoch, values)
    assert other.communicate("\n", timeout=60)[0] == "done\n"
    found = ExpertBuffer(tmp_path)
    for expert in range(2):
        for epoch in EPOCHS:
            wanted = numbers(expert, epoch, header.p).half().float()
            assert torch.equal(found.snapshot(expert, epoch, CPU), wanted)
