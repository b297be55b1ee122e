"""Open an expert buffer that another run created, and check that it matches this run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.teachers.expert_buffer import ExpertBuffer
from dd_bench.training.parameter_vector import FunctionalNetwork


def released_experts(
    folder: str, real: RealSet, architecture: Architecture, window: Iterable[int], init_epoch: int | None
) -> ExpertBuffer:
    """Open the buffer in `folder` and check that it matches this run.

    Args:
        folder: folder of the buffer.
        real: the dataset of the run.
        architecture: the network of the run.
        window: the epochs of the experts that the run needs.
        init_epoch: the epoch whose network initialises images or labels, or None.

    Raises:
        ValueError: the buffer is missing, is damaged, or does not match this run.
    """
    buffer = ExpertBuffer(Path(folder))
    if reason := check_buffer(buffer, real, architecture, window):
        raise ValueError(reason)
    if init_epoch is not None and init_epoch not in buffer.header.epochs:
        raise ValueError(
            f"method.experts.init_epoch must be one of the epochs in {buffer.path}, {list(buffer.header.epochs)}, "
            f"got {init_epoch}. Example: method.experts.init_epoch={buffer.header.epochs[-1]}"
        )
    return buffer


def check_buffer(
    buffer: ExpertBuffer, real: RealSet, architecture: Architecture, epochs: Iterable[int]
) -> str | None:
    """Return why a buffer does not match this run and what to change, or None."""
    header = buffer.header
    if header.architecture != architecture.describe():
        return (
            f"the experts in {buffer.path} are networks {header.architecture}, but the model of this run is "
            f"{architecture.describe()}. Use the network of the experts (model=...), or method.experts.source=null to "
            "train new experts"
        )
    order = tuple(FunctionalNetwork(architecture.fresh(0, torch.device("cpu"))).order)
    if tuple(map(_as_tuples, header.order)) != tuple(map(_as_tuples, order)):
        return (
            f"the experts in {buffer.path} store their parameters in another order than the model of this run. Use "
            "method.experts.source=null to train new experts"
        )
    if header.preprocess != real.preprocess.digest:
        kind = header.preprocessing.get("kind")
        return (
            f"the experts in {buffer.path} were trained with the preprocessing "
            f"{header.preprocessing or header.preprocess}, but this run uses {real.preprocess.config()}. Use "
            + (
                f"dataset.preprocess={kind} and the training images it was fitted to"
                if kind
                else "the preprocessing of the experts"
            )
            + ", or method.experts.source=null to train new experts"
        )
    if header.real != (real.digest, len(real.train)):
        return (
            f"the experts in {buffer.path} were trained on other data than the {len(real.train)} training images of "
            f"{real.name}. Use the dataset of the experts, or method.experts.source=null to train new experts"
        )
    missing = sorted(set(epochs) - set(header.epochs))
    if missing:
        first, last = _longest_run(header.epochs)
        return (
            f"the window contains epoch {missing[0]}, but {buffer.path} contains only epochs {list(header.epochs)}. "
            f"Use method.window.first>={first} and method.window.stop - 1 + method.expert_epochs <= {last}"
        )
    return None


def _as_tuples(value: Any) -> Any:
    """Convert nested lists, as read from JSON, to tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _longest_run(epochs: tuple[int, ...]) -> tuple[int, int]:
    """Return the first and last epoch of the longest run of consecutive epochs."""
    best = start = end = epochs[0]
    length = 0
    for epoch in epochs:
        start = epoch if epoch > end + 1 else start
        end = epoch
        if end - start > length:
            best, length = start, end - start
    return best, best + length
