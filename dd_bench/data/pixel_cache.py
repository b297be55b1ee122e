"""Decoded images, stored once in the user's cache folder and memory-mapped by every later process.

The name of a file in the cache is a hash of the image files and of the decoder. An edited image therefore gives another
file. `image_cache` bounds the size of the folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import PIL
import torch
from torch import Tensor

from dd_bench.data.image_cache import image_cache, mark_used, prune
from dd_bench.data.image_decoder import Decoder, decode_all, decoded_chunks
from dd_bench.runtime import mmap_file
from dd_bench.runtime.cache import locked
from dd_bench.runtime.files import content_key
from dd_bench.runtime.mmap_file import Layout

_VERSION = 3  # of `Decoder`
_log = logging.getLogger(__name__)


def cached_pixels(paths: Sequence[Path], hashes: Sequence[str], decoder: Decoder) -> Tensor:
    """Return all images, uint8 `(n, 3, h, w)` on the CPU, memory-mapped from the cache.

    Pages are read from the disk when they are used, and are shared by the processes of a sweep. If the cache cannot be
    written (no space, read-only), the images are decoded into memory.

    Args:
        paths: the image files.
        hashes: the sha256 of each file.
        decoder: decoder of the files.

    Raises:
        ValueError: a file cannot be decoded.
    """
    layout = Layout("pixels", {}, {"pixels": ("U8", (len(paths), 3, *decoder.shape))})
    settings = [_VERSION, PIL.__version__, decoder.shape, decoder.resize, decoder.background]
    file = image_cache() / f"{content_key([settings, list(hashes)])}.safetensors"
    mark_used(file)  # before the check below, so that no other process deletes the file
    try:
        if not file.exists():
            with locked(file.with_suffix(".lock")):
                if not file.exists():
                    _write(file, layout, paths, decoder)
    except OSError as error:
        _log.warning(
            "decoded images cannot be stored in %s and are kept in memory (%s). Use another folder: "
            "export DD_BENCH_HOME=FOLDER",
            file.parent, error,
        )  # fmt: skip
        return decode_all(paths, decoder)
    header = layout.header()
    try:
        mmap_file.check_size(file, layout, len(header))
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged: {error}. Delete it and run the command again: rm {file}"
        ) from error
    return torch.from_numpy(mmap_file.array(file, layout, "pixels", len(header), "c"))


def _write(file: Path, layout: Layout, paths: Sequence[Path], decoder: Decoder) -> None:
    _log.info("decoding %d images into %s (%.0f MB)", len(paths), file, layout.size / 1e6)
    partial = file.with_suffix(".partial")  # a killed process leaves it, and the next one writes it again
    try:
        with partial.open("wb") as out:
            out.write(layout.header())
            for chunk in decoded_chunks(paths, decoder):
                out.write(chunk.numpy().data)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
        prune()
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
