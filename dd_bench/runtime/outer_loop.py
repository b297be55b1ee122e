"""The outer loop that every method runs in: progress, logging, checkpoint, resume, divergence.

A method writes `for step in ctx.steps(iterations, state)` and nothing of these. Values given to `ctx.log` stay on
the device until they are flushed, so a step never waits for the device.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.runtime import checkpoint
from dd_bench.runtime.loggers import Logger
from dd_bench.runtime.progress import Progress


class Diverged(RuntimeError):
    """A logged value or the carried state is no longer finite."""


class OuterLoop:
    """One run's outer loop.

    Attributes:
        seconds_before: wall-clock that earlier, killed parts of this run spent in steps that are kept.
    """

    def __init__(self, workdir: Path, logger: Logger, *, log_every: int, checkpoint_seconds: float):
        """Keeps its checkpoint in `workdir`; flushes logs every `log_every` steps."""
        self._workdir, self._logger = workdir, logger
        self._log_every, self._checkpoint_seconds = log_every, checkpoint_seconds
        self._pending: list[tuple[int, str, Tensor | float]] = []
        self._name, self._step = "", 0
        self._checkpoints: list[Path] = []
        self.seconds_before = 0.0

    def steps(self, iterations: int, state: checkpoint.State, name: str) -> Iterator[int]:
        """Yields 0..iterations-1, from where the last checkpoint of the loop `name` left off.

        Raises:
            ValueError: `iterations` is no whole number >= 0.
            Diverged: a logged value or a tensor of `state` is not finite; the last checkpoint is.
            CheckpointError: the checkpoint is damaged or of other state.
        """
        if type(iterations) is not int or iterations < 0:
            raise ValueError(f"{name}: {iterations!r} iterations, wanted a whole number >= 0")
        path = self._workdir / f"{name}.checkpoint.safetensors"
        self._checkpoints.append(path)
        self._name = name
        start, before = checkpoint.restore(path, state)
        self.seconds_before += before
        self._logger.resume(name, start)
        began = saved = time.monotonic()
        with Progress(name, iterations, start) as progress:
            for step in range(start, iterations):
                self._step = step
                yield step
                last = step + 1 == iterations
                due = time.monotonic() - saved >= self._checkpoint_seconds
                if last or due or (step + 1) % self._log_every == 0:
                    progress.advance_to(step + 1, self._flush(path))
                if last or due:
                    self._check_finite(state, path)
                    checkpoint.save(path, step + 1, before + time.monotonic() - began, state)
                    saved = time.monotonic()

    def log(self, **values: Tensor | float) -> None:
        """Remembers scalars of this step; 0-d tensors stay on the device until the next flush."""
        self._pending += [
            (self._step, k, v.detach() if isinstance(v, Tensor) else v) for k, v in values.items()
        ]

    def branch(self, name: str) -> OuterLoop:
        """Returns the outer loop of the shard `name`, with its own folder for checkpoints and log."""
        return OuterLoop(
            self._workdir / name,
            self._logger.branch(name),
            log_every=self._log_every,
            checkpoint_seconds=self._checkpoint_seconds,
        )

    @property
    def shards(self) -> Path:
        """Where finished shards of the work lie until they are put together."""
        return self._workdir / "shards"

    def clean_up(self) -> None:
        """Removes checkpoints and shards, and what a killed run left of one: what they led to is kept."""
        logs = sorted(self.shards.glob("*/log.jsonl"))
        if logs:  # each loop has the name of its shard
            with (self._workdir / "log.jsonl").open("a") as file:
                file.writelines(log.read_text() for log in logs)
        shutil.rmtree(self.shards, ignore_errors=True)
        for path in self._checkpoints:
            path.unlink(missing_ok=True)
            for part in path.parent.glob(f".{path.name}.*"):
                part.unlink()

    def _flush(self, path: Path) -> dict[str, float]:
        """Writes what is pending, in one transfer from the device, and returns the latest values."""
        if not self._pending:
            return {}
        device = next((v.device for _, _, v in self._pending if isinstance(v, Tensor)), None)
        numbers = torch.stack(
            [torch.as_tensor(v, device=device, dtype=torch.float64) for _, _, v in self._pending]
        )
        rows: dict[int, dict[str, float]] = {}
        for (step, name, _), number in zip(self._pending, numbers.tolist(), strict=True):
            rows.setdefault(step, {})[name] = number
        self._pending.clear()
        for step, row in rows.items():
            self._logger.log(self._name, step, row)
            for name, number in row.items():
                if not math.isfinite(number):
                    raise Diverged(f"{name} is {number} at step {step}. {_kept(path)}")
        return row

    def _check_finite(self, state: checkpoint.State, path: Path) -> None:
        for name, tensor in checkpoint.tensors_in(state).items():
            if not bool(torch.isfinite(tensor).all()):
                raise Diverged(f"{name} is not finite after step {self._step}. {_kept(path)}")


def _kept(path: Path) -> str:
    kept = f"The last finite state is kept: {path}. " if path.exists() else ""
    return f"{kept}Try a smaller learning rate, e.g. method.lr_img divided by 10"
