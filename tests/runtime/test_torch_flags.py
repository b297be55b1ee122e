"""Torch's flags: every run sets all of them, and both of torch's interfaces agree afterwards."""

import os

import pytest
import torch
from torch import backends

from dd_bench.runtime import torch_flags
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.runtime.torch_flags import read_flags, set_flags

CONFIG = {
    "device": "cpu", "precision": "fp32", "compile": "never", "compile_after": 0, "workers": 1, "spread_after": 0,
    "compile_after_cuda": 0, "together": 1, "graphs": "never",
    "threads": 1, "deterministic": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def restored():
    """Restore the flags after each test."""
    yield
    backends.fp32_precision = "none"
    set_flags(tf32=False, deterministic=False)


def tf32_is_allowed():
    """Return the answers of both interfaces, for matrix products and for convolutions."""
    old = [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32]
    precisions = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    new = [p.fp32_precision == "tf32" for p in precisions]
    assert len({*old, *new}) == 1, "torch raises an error if the interfaces were mixed"
    assert torch.get_float32_matmul_precision() == ("high" if old[0] else "highest"), "read by the compiler"
    return old[0]


def test_tf32_is_set_for_convolutions_too():
    """By default torch uses TF32 for convolutions, but not for matrix products."""
    for tf32 in (True, False, True):
        set_flags(tf32, deterministic=False)
        assert tf32_is_allowed() is tf32 and torch_flags.current() == (tf32, False)


def test_float32_needs_all_flags():
    backends.fp32_precision = "tf32"  # a user's program
    with pytest.raises(ValueError, match=r"torch.backends.cudnn.conv.fp32_precision must be .*, got 'tf32'"):
        set_flags(tf32=False, deterministic=False)


def test_a_run_has_its_own_flags_after_another_one():
    """A job of a sweep must not compute with the flags of the job before it, or of a user's program."""
    torch.set_float32_matmul_precision("medium")  # oneDNN would use bfloat16 on a CPU with AMX
    backends.cudnn.benchmark = True
    resolve(RuntimeConfig(**CONFIG | {"deterministic": True}))
    flags = read_flags()
    assert flags["backends.mkldnn.matmul.fp32_precision"] == "ieee"
    assert flags["are_deterministic_algorithms_enabled"] and flags["backends.cudnn.deterministic"]
    assert not flags["backends.cudnn.benchmark"] and not tf32_is_allowed()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"], "read once, so it is set before any job uses CUDA"
    set_flags(tf32=True, deterministic=False)  # another job
    torch.use_deterministic_algorithms(True, warn_only=True)
    resolve(RuntimeConfig(**CONFIG))
    flags = read_flags()
    assert not flags["are_deterministic_algorithms_enabled"] and not flags["backends.cudnn.deterministic"]
    assert not torch.is_deterministic_algorithms_warn_only_enabled() and not tf32_is_allowed()
