"""Load `.pt` files, which are pickles, with `torch.load(weights_only=True)`, which never runs code from the file."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dd_bench.runtime import untrusted


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

ZIP_START = b"PK\3\4"  # of files of torch.save, except its format before version 1.6
MAX_FILE = 8 << 30
"""Maximum size of a file in bytes. Ten float32 images of 224 pixels for each class of ImageNet have 6 GB."""


def load_file(path: Path) -> Any:
    """Load a file of `torch.save` that contains only data. It needs about as much memory as the file has bytes.

    Raises:
        OSError: the file could not be opened.
        ValueError: the file is not a regular file of at most `MAX_FILE` bytes, was not written by `torch.save`, or
            loading it would run code.
    """
    advice = ". Split it into several files of tensors, which are imported together: data_0.pt data_1.pt"
    with untrusted.open_regular(path, MAX_FILE, advice) as file:
        _check_not_compressed(file, path)
        return _load(file, path)


def _check_not_compressed(file: BinaryIO, path: Path) -> None:
    """Raise ValueError if the file is a compressed ZIP archive. torch.save does not compress."""
    if file.read(4) == ZIP_START:
        try:
            with zipfile.ZipFile(file) as archive:
                needed = sum(entry.file_size for entry in archive.infolist())
        except Exception as error:  # an untrusted file can cause any error
            raise ValueError(f"{path} was not loaded: it is damaged ({error}). Download it again") from error
        if needed > (size := file.seek(0, os.SEEK_END)):
            raise ValueError(
                f"{path} must not be compressed, got {size:,} bytes that expand to {needed:,}. Write it with "
                "torch.save(tensor, FILE)"
            )
    file.seek(0)


def _load(file: BinaryIO, path: Path) -> Any:
    try:
        with (
            torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # the error below already reports an invalid file
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise ValueError(f"{path} was not loaded: it does not fit into memory") from error
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
