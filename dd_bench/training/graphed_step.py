"""Run each step of a training as a CUDA graph, so that one call launches the whole step.

A graph repeats the kernels of one recorded step, with the same addresses, shapes and constants. A step can be recorded
if it is a function of tensors in fixed memory (`FixedMemory`), reads nothing from the device, and if its kernels do not
depend on values. Everything that differs between steps (indices, random numbers, learning rate) is therefore copied to
fixed memory before each step.

Only `cuda_graph` needs CUDA. With another `Record`, the same code runs on the CPU, which the tests use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dd_bench.runtime.fixed_memory import FixedMemory, tensors_in

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Steps that run before one is recorded. Libraries choose their kernels and allocate workspaces in the first ones."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Records the kernels of a function without running them, and returns a function that runs them."""


def cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Record a CUDA graph of `run`."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@dataclass
class _Recording:
    """The inputs of all steps with tensors of the same shapes, and the function that runs the next step."""

    inputs: FixedMemory
    run: Callable[[], None]
    steps: int = 0


class GraphedStep:
    """A step `step(inputs)` that is recorded once for each combination of shapes, and then repeated.

    The last batch of an epoch can be smaller than the others, so there are usually one or two combinations.
    """

    def __init__(self, step: Callable[[Any], None], device: torch.device, record: Record = cuda_graph):
        """Take a function of nested dataclasses and dicts of tensors."""
        self._step, self._device, self._record = step, device, record
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, inputs: Any) -> None:
        """Run a step with inputs on the CPU."""
        shapes = tuple(t.shape for t in tensors_in(inputs))
        if shapes not in self._recordings:
            memory = FixedMemory(inputs, self._device)
            self._recordings[shapes] = _Recording(memory, lambda: self._step(memory.tree))
        recording = self._recordings[shapes]
        recording.inputs.fill(inputs)
        if recording.steps == WARM_UP:
            recording.run = self._recorded(recording.run)
        recording.run()
        recording.steps += 1

    def _recorded(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats the kernels of `run`, or `run` itself if they cannot be recorded."""
        try:
            return self._record(run)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            logger.warning(
                "the steps are not run as a CUDA graph, because one could not be recorded: %s", reason
            )
            return run
