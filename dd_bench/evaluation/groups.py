"""Train networks in groups, in lock step, and adapt to what the device and the architecture allow."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from dd_bench.runtime.lock_step import LockStep
from dd_bench.training.together import LockStepError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def in_groups(
    seeds: dict[int, int],
    limit: LockStep,
    together: Callable[[dict[int, int]], Iterable[tuple[int, Result]]],
    one: Callable[[int, int], Result],
    discard: Callable[[dict[int, int]], None],
) -> Iterator[tuple[dict[int, int], list[tuple[int, Result]]]]:
    """Train networks in groups of up to `limit.networks`, and yield the seeds and the results of each group.

    If the memory of the device does not suffice, the limit is halved, and the group is divided and trained again.
    Networks that cannot be trained in lock step are trained one after the other. The results are the same in all cases,
    up to rounding, because each network has its own seed.

    Args:
        seeds: the seed of each network, by its index.
        limit: the size of groups.
        together: trains a group in lock step and returns `(network, result)` for each.
        one: trains one network, given its index and seed, and returns its result.
        discard: removes what was saved of a group that could not be trained in lock step.
    """
    waiting, supported = list(seeds), True
    while waiting:
        size = limit.networks if supported else 1
        group = {network: seeds[network] for network in waiting[:size]}
        if size == 1:
            results: list[tuple[int, Result]] | None = [(n, one(n, seed)) for n, seed in group.items()]
        else:
            try:
                results = list(together(group))
            except torch.OutOfMemoryError:
                limit.halve(len(group))
                logger.warning(
                    "the memory of the device does not suffice for %d networks in lock step. Continuing with %d",
                    len(group),
                    limit.networks,
                )
                results = None
            except LockStepError as error:
                logger.warning("networks are trained one after the other instead of in lock step: %s", error)
                results, supported = None, False
        if results is None:
            # after `except`, because its error keeps the tensors of the failed training in memory; so do cycles
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            discard(group)
            continue
        yield group, results
        waiting = waiting[len(group) :]
