"""The memory of a run does not grow with its length, although freed memory is retained."""

import sys

import pytest

LOOP = """
import sys, tempfile, torch
from pathlib import Path
torch.set_num_threads(1)
from dd_bench.runtime.allocator import keep_freed_memory
keep_freed_memory()
from dd_bench.pipeline.provenance import peak_resident
from dd_bench.runtime.loggers import Jsonl
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime.outer_loop import OuterLoop

work = Path(tempfile.mkdtemp())
loop = OuterLoop(work, Jsonl(work / "log.jsonl"), log_every=10, checkpoint_seconds=0.05)
images = torch.randn(60, 1, 28, 28, requires_grad=True)
optimizer = torch.optim.SGD([images], 0.1, momentum=0.5)
peaks = {}
for step in loop.steps(260, {"images": images, "optimizer": optimizer}, "distill"):
    net = ConvNet((1, 28, 28), 10, depth=3, width=16, norm="instancenorm", activation="relu", pooling="avg")
    loss = net.embed(images).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loop.log(loss=loss)
    peaks[step] = peak_resident()
print(peaks[259] - peaks[60])
"""


FREED = """
import ctypes
from dd_bench.runtime.allocator import keep_freed_memory
if not keep_freed_memory():
    raise SystemExit("another libc, or a variable MALLOC_*")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 5 * 2**29
block = libc.malloc(size)
ctypes.memset(block, 1, size)
libc.free(block)
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * 4096 >= size)
"""


def test_more_than_two_gibibytes_are_retained(tmp_path):
    """DC with 256 real images per class frees 2.5 GiB in each step. Mapping them again took 42 % of its time."""
    import os
    import subprocess

    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FREED], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    if "another libc" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout == "True\n", done.stderr


@pytest.mark.slow
def test_memory_does_not_grow_in_200_steps(tmp_path):
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", LOOP], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert int(done.stdout) < 4 * 2**20, f"{int(done.stdout):,} bytes in 200 steps"  # a step uses 20 MiB
