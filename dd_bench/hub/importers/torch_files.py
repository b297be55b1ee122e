"""Load `.pt` files, which are pickles, with `torch.load(weights_only=True)`, which never runs code from the file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Ignored:
    """Placeholder for unused NumPy values in a file, such as accuracies."""

    def __init__(self, *_: Any):
        """Ignore all arguments."""

    def __setstate__(self, _: Any) -> None:
        """Ignore the state."""


IGNORED = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64")),
    *(f"numpy.dtypes.{name}" for name in ("Float64DType", "Float32DType", "Int64DType")),
]


DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


def load_file(path: Path) -> Any:
    """Load a file of `torch.save` that contains only data.

    Raises:
        ValueError: the file was not written by `torch.save`, or loading it would run code.
    """
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist")
    try:
        with (
            torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # the error below already reports an invalid file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an untrusted file can cause any error
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {called[1]}" if called else "it was not written by torch.save"
        raise ValueError(
            f"{path} was not loaded: {reason}. The file must contain only tensors. Example: torch.save(tensor, FILE)"
        ) from error


def check_tensor(content: Any, what: str) -> Tensor:
    """Return `content` if it is a dense tensor of real numbers; `what` names it in the error.

    Raises:
        ValueError: it is anything else.
    """
    if (
        not isinstance(content, Tensor)
        or content.layout != torch.strided
        or content.is_meta
        or content.dtype not in DTYPES
    ):
        kind = "a NumPy value" if isinstance(content, Ignored) else f"a {type(content).__name__}"
        if isinstance(content, Tensor):
            kind = f"{content.layout} {content.dtype} on {content.device}"
        raise ValueError(f"{what} must contain a dense tensor of real numbers, got {kind}")
    stored, needed = content.untyped_storage().nbytes(), content.numel() * content.element_size()
    if needed > stored:
        raise ValueError(
            f"{what} must store every value, got a tensor of shape {tuple(content.shape)} with {needed:,} bytes "
            f"that repeats {stored:,} bytes"
        )
    return content.detach()
