"""Checkpoints of a training: after epochs, and in the middle of an epoch if a signal stops the run.

The state in the middle of an epoch is in a second file, with the random streams at the start of the epoch and after
the last step. When the training resumes, the random numbers of the finished steps are drawn again, without computing
their batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dd_bench.runtime import checkpoint, distributed, interruption
from dd_bench.runtime.seeding import Generators

Draw = TypeVar("Draw")


class Checkpoints(NamedTuple):
    """Where and how often the state of a training is saved.

    Attributes:
        path: file of the state after a complete epoch. It is not removed at the end of the training.
        seconds: minimum time between two checkpoints, in seconds; 0 saves after every epoch.
        final: whether to save after the last epoch in any case.
    """

    path: Path
    seconds: float = 0.0
    final: bool = True

    @property
    def mid_epoch(self) -> Path:
        """File of the state in the middle of an epoch."""
        return self.path.with_name(f"step.{self.path.name}")

    @property
    def exists(self) -> bool:
        """Whether a state was saved."""
        return self.path.exists() or self.mid_epoch.exists()

    def remove(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self.mid_epoch.unlink(missing_ok=True)


def saved_epochs(path: Path) -> tuple[int, float]:
    """Return the complete epochs of the checkpoint `path`, and the seconds of all interrupted attempts."""
    epochs, seconds = checkpoint.saved_progress(path)
    return epochs, max(seconds, checkpoint.saved_progress(Checkpoints(path).mid_epoch)[1])


class _Snapshot:
    """The state of an object at an earlier time, which can be saved and restored like the object."""

    def __init__(self, state: dict[str, Any] | None = None):
        self._state = state or {}

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state


class ResumableTraining:
    """The state of a training that is saved, and the position at which it resumes.

    Attributes:
        epoch: number of complete epochs, including those of interrupted attempts.
    """

    def __init__(
        self, where: Checkpoints | None, state: checkpoint.State, streams: Generators, steps_per_epoch: int
    ):
        """Restore the last state, if there is one.

        Args:
            where: the files; None to save nothing.
            state: everything that a step changes, except the random streams.
            streams: the random streams.
            steps_per_epoch: number of steps of an epoch.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another network or optimiser.
        """
        self._where, self._streams, self._steps = where, streams, steps_per_epoch
        self._state: dict[str, Any] = {**state, "streams": streams}
        self.epoch, self._before, self._first = 0, 0.0, 0
        if where is not None:
            self.epoch, self._before = checkpoint.restore(where.path, self._state)
            steps, seconds = checkpoint.saved_progress(where.mid_epoch)
            if steps > self.epoch * steps_per_epoch:  # restored in `steps`, after the learning rate was set
                self.epoch, self._first = divmod(steps, steps_per_epoch)
                self._before = seconds
        self._began = self._saved = time.monotonic()

    def deferred(self) -> AbstractContextManager[None]:
        """Return a context in which a signal stops the run only after its state was saved, if it is saved at all."""
        return interruption.deferred() if self._can_stop else nullcontext()

    def steps(self, draws: Iterator[Draw]) -> Iterator[tuple[int, Draw]]:
        """Yield `(step, draw)` for the remaining steps of the current epoch; `step` counts from its start.

        If a signal was received during a step, the state is saved and the run stops.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another network or optimiser.
            Interrupted: a signal has stopped the run.
        """
        if not self._can_stop or self._steps == 1:
            yield from enumerate(draws)
            return
        start, first, self._first = self._streams.state_dict(), self._first, 0
        if first:
            assert self._where is not None
            then, now = _Snapshot(), _Snapshot()
            checkpoint.restore(self._where.mid_epoch, {**self._state, "streams": now, "epoch start": then})
            start = then.state_dict()
            self._streams.load_state_dict(start)
            for _ in range(first):
                next(draws)
            self._streams.load_state_dict(now.state_dict())
        for step, draw in enumerate(draws, first):
            yield step, draw
            if step + 1 < self._steps and interruption.stop_requested():
                self._stop(step + 1, start)

    def end_epoch(self, last: bool) -> None:
        """Save the state after an epoch if it is due, and stop the run if a signal was received.

        Raises:
            Interrupted: a signal has stopped the run; the state was saved.
        """
        self.epoch += 1
        if self._where is None:
            return
        stopping = self._can_stop and interruption.stop_requested()
        due = self._where.final if last else time.monotonic() - self._saved >= self._where.seconds
        if due or stopping:
            checkpoint.save(self._where.path, self.epoch, self._seconds(), self._state)
            self._where.mid_epoch.unlink(missing_ok=True)
            self._saved = time.monotonic()
        if stopping:
            interruption.stop(f"the training of a network, up to the end of epoch {self.epoch}")

    @property
    def _can_stop(self) -> bool:
        """Whether a state in the middle of an epoch can be saved; with several processes, the others would wait."""
        return self._where is not None and distributed.world_size() == 1

    def _stop(self, step: int, start: dict[str, Any]) -> None:
        assert self._where is not None
        state = {**self._state, "epoch start": _Snapshot(start)}
        checkpoint.save(self._where.mid_epoch, self.epoch * self._steps + step, self._seconds(), state)
        interruption.stop(f"the training of a network, up to step {step} of epoch {self.epoch + 1}")

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began
