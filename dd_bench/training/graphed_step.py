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
from dd_bench.runtime.step_graphs import StepGraphs

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Steps that run before one is recorded. Libraries choose their kernels and allocate workspaces in the first ones."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Records the kernels of a function without running them, and returns a function that runs them."""


def cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Record a CUDA graph of `run`."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            run()
    finally:
        # if the recording cannot end, `torch.cuda.graph` leaves its own stream as the current one
        torch.cuda.set_stream(stream)
    return graph.replay


def out_of_memory(error: BaseException | None) -> str | None:
    """Return the text of the OutOfMemoryError among an error and the errors that led to it; None if there is none.

    An allocation that fails in a recording also makes the end of the recording fail, with another RuntimeError. The
    error itself is not returned: a caller that keeps it in a variable would be in a reference cycle with its traceback,
    so the tensors of the failed step would stay in memory.
    """
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return None if error is None else str(error)


def first_line(error: BaseException) -> str:
    """Return the first line of the text of an error, or the name of its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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

    def __init__(
        self,
        step: Callable[[Any], None],
        device: torch.device,
        graphs: StepGraphs,
        record: Record = cuda_graph,
    ):
        """Take a function of nested dataclasses and dicts of tensors. The result of recording is added to `graphs`."""
        self._step, self._device, self._graphs, self._record = step, device, graphs, record
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, inputs: Any) -> None:
        """Run a step with inputs on the CPU."""
        shapes = tuple(t.shape for t in tensors_in(inputs))
        if shapes not in self._recordings:
            # without `self`, which would be in a reference cycle with its recordings and keep their memory
            step, memory = self._step, FixedMemory(inputs, self._device)
            self._recordings[shapes] = _Recording(memory, lambda: step(memory.tree))
        recording = self._recordings[shapes]
        recording.inputs.fill(inputs)
        if recording.steps == WARM_UP:
            recording.run = self._recorded(recording.run)
        recording.run()
        recording.steps += 1

    def _recorded(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats the kernels of `run`, or `run` itself if a step could not be recorded.

        Raises:
            torch.OutOfMemoryError: the memory of the device does not suffice.
        """
        if self._graphs.failure is not None:
            return run
        try:
            recorded = self._record(run)
        except RuntimeError as error:
            if (text := out_of_memory(error)) is not None:
                raise torch.OutOfMemoryError(text) from error
            self._graphs.failure = reason = first_line(error)
            logger.warning(
                "the steps of this run are not run as CUDA graphs, because one could not be recorded: %s",
                reason,
            )
            return run
        self._graphs.recorded += 1
        return recorded
