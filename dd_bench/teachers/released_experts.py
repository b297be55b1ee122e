"""Expert buffers made elsewhere: opened from a folder and compared with what the run needs."""

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
    """Returns the buffer in a folder of the user, after checking that it fits this run.

    Args:
        folder: of the buffer.
        real: the dataset of the run.
        architecture: the network of the run.
        window: the epochs that are matched.
        init_epoch: the epoch that images or labels start from, or None.

    Raises:
        ValueError: there is no buffer, or it does not fit this run.
    """
    buffer = ExpertBuffer(Path(folder))
    if reason := check_buffer(buffer, real, architecture, window):
        raise ValueError(reason)
    if init_epoch is not None and init_epoch not in buffer.header.epochs:
        raise ValueError(
            f"the start asks for epoch {init_epoch}, the buffer {buffer.path} holds "
            f"{list(buffer.header.epochs)}. Use method.experts.init_epoch={buffer.header.epochs[-1]}"
        )
    return buffer


def check_buffer(
    buffer: ExpertBuffer, real: RealSet, architecture: Architecture, epochs: Iterable[int]
) -> str | None:
    """Returns why a buffer made elsewhere does not fit this run, and what to change, or None."""
    header = buffer.header
    if header.architecture != architecture.describe():
        return (
            f"the experts of {buffer.path} are {header.architecture}, this run distils with "
            f"{architecture.describe()}. Use their network (model=...), or method.experts.source=null"
        )
    order = tuple(FunctionalNetwork(architecture.fresh(0, torch.device("cpu"))).order)
    if tuple(map(_as_tuples, header.order)) != tuple(map(_as_tuples, order)):
        return (
            f"the experts of {buffer.path} hold their parameters in another order than this network. Use "
            "method.experts.source=null"
        )
    if header.preprocess != real.preprocess.digest:
        kind = header.preprocessing.get("kind")
        return (
            f"the experts of {buffer.path} were trained under the preprocessing "
            f"{header.preprocessing or header.preprocess}, this run's is {real.preprocess.config()}. Use "
            + (f"dataset.preprocess={kind} and the data it was fitted to" if kind else "theirs")
            + ", or method.experts.source=null"
        )
    if header.real != (real.digest, len(real.train)):
        return (
            f"the experts of {buffer.path} were trained on other data than {real.name} with "
            f"{len(real.train)} images. Use their dataset, or method.experts.source=null"
        )
    missing = sorted(set(epochs) - set(header.epochs))
    if missing:
        first, last = _longest_run(header.epochs)
        return (
            f"the window asks for epoch {missing[0]}, the buffer {buffer.path} holds {list(header.epochs)}. "
            f"Use method.window.first>={first} and method.window.stop - 1 + method.expert_epochs <= {last}"
        )
    return None


def _as_tuples(value: Any) -> Any:
    """Returns nested lists as tuples, since JSON has no tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _longest_run(epochs: tuple[int, ...]) -> tuple[int, int]:
    """Returns the ends of the longest run of consecutive epochs."""
    best = start = end = epochs[0]
    length = 0
    for epoch in epochs:
        start = epoch if epoch > end + 1 else start
        end = epoch
        if end - start > length:
            best, length = start, end - start
    return best, best + length
