"""The outer loop of every method, with progress, logging, previews, checkpoints, resuming and a check for divergence.

A method uses it as `for step in ctx.steps(iterations, state)`. Values passed to `ctx.log` stay on the device until they
are written to the log, so a step does not wait for the device.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.runtime import checkpoint, interruption
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.loggers import Logger
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.transfer import to_host

_log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """A logged value or a tensor of the state is not finite."""


class OuterLoop:
    """The outer loop of one run.

    Attributes:
        seconds_before: wall-clock seconds of the steps that earlier, interrupted attempts of this run have saved.
    """

    def __init__(
        self,
        workdir: Path,
        logger: Logger,
        *,
        log_every: int,
        checkpoint_seconds: float,
        log_images_every: int | None = None,
        previews: Path | None = None,
    ):
        """Create a loop.

        Args:
            workdir: folder of the checkpoints.
            logger: logger of the scalars.
            log_every: number of steps between two writes to the log.
            checkpoint_seconds: minimum time between two checkpoints, in seconds.
            log_images_every: number of steps between two previews of the synthetic set; None to write none.
            previews: folder of the previews; default: `workdir`.
        """
        self._workdir, self._logger = workdir, logger
        self._log_every, self._checkpoint_seconds = log_every, checkpoint_seconds
        self._log_images_every, self._previews = log_images_every, previews or workdir
        self._pending: list[tuple[int, str, Tensor | float]] = []
        self._name, self._step = "", 0
        self._checkpoints: list[Path] = []
        self.seconds_before = 0.0

    def steps(
        self,
        iterations: int,
        state: checkpoint.State,
        name: str,
        check: Callable[[int], None] | None = None,
        preview: Callable[[], bytes] | None = None,
    ) -> Iterator[int]:
        """Yield the steps 0..iterations-1, starting after the last checkpoint of the loop `name`.

        Before a checkpoint is saved, `check` is called with the step number. It raises `Diverged` if the state must not
        be saved. `preview` returns a PNG of the synthetic set after the current step. It must not draw random numbers.

        Raises:
            ValueError: `iterations` is not an integer >= 0.
            Diverged: a logged value or a tensor of `state` is not finite. The last checkpoint has only finite values.
            CheckpointError: the checkpoint is damaged or does not match `state`.
            Interrupted: a signal has stopped the run; a checkpoint of the last complete step was written.
        """
        if type(iterations) is not int or iterations < 0:
            raise ValueError(
                f"{name}: iterations must be an integer >= 0, got {iterations!r}. Example: method.iterations=100"
            )
        path = self._workdir / f"{name}.checkpoint.safetensors"
        self._checkpoints.append(path)
        self._name = name
        first, seconds = checkpoint.restore(path, state)
        self.seconds_before += seconds
        self._logger.resume(name, first)
        start_time = saved_time = time.monotonic()
        if first == 0:
            self._preview(preview, 0)
        with Progress(name, iterations, first) as progress, interruption.deferred():
            for step in range(first, iterations):
                self._step = step
                yield step
                last, stopping = step + 1 == iterations, interruption.stop_requested()
                due = last or stopping or time.monotonic() - saved_time >= self._checkpoint_seconds
                if due or (step + 1) % self._log_every == 0:
                    progress.advance_to(step + 1, self._flush(path))
                every = self._log_images_every
                if every is not None and ((step + 1) % every == 0 or last):
                    self._preview(preview, step + 1)
                if due:
                    if check is not None:
                        check(step)
                    self._check_finite(state, path)
                    checkpoint.save(path, step + 1, seconds + time.monotonic() - start_time, state)
                    saved_time = time.monotonic()
                if stopping:
                    interruption.stop(f"step {step + 1} of {iterations} of the loop {name}")

    def log(self, **values: Tensor | float) -> None:
        """Log scalars of this step. 0-d tensors stay on the device until the next write to the log."""
        self._pending += [
            (self._step, k, v.detach() if isinstance(v, Tensor) else v) for k, v in values.items()
        ]

    def branch(self, name: str) -> OuterLoop:
        """Return the outer loop of the shard `name`, with a separate folder for its checkpoints and log."""
        return OuterLoop(
            self._workdir / name,
            self._logger.branch(name),
            log_every=self._log_every,
            checkpoint_seconds=self._checkpoint_seconds,
            log_images_every=self._log_images_every,
            previews=self._previews,
        )

    @property
    def shards(self) -> Path:
        """Folder where finished shards are stored until they are combined."""
        return self._workdir / "shards"

    def clean_up(self) -> None:
        """Remove all checkpoints, all shards, and the temporary files that killed runs left. Call after saving.

        Before the shards are removed, their logs are appended to the main log.
        """
        logs = sorted(self.shards.glob("*/log.jsonl"))
        if logs:  # lines can be merged, because the name of a loop contains the name of its shard
            with (self._workdir / "log.jsonl").open("a") as file:
                file.writelines(log.read_text() for log in logs)
        shutil.rmtree(self.shards, ignore_errors=True)
        for path in self._checkpoints:
            path.unlink(missing_ok=True)
            for temporary in path.parent.glob(f".{path.name}.*"):
                temporary.unlink()

    def _flush(self, path: Path) -> dict[str, float]:
        """Write the pending values, with one transfer from the device, and return the latest values."""
        if not self._pending:
            return {}
        tensors = [v for _, _, v in self._pending if isinstance(v, Tensor)]
        on_device = [v.to(tensors[0].device, torch.float64) for v in tensors]
        read = iter(torch.stack(on_device).tolist() if tensors else [])
        rows: dict[int, dict[str, float]] = {}
        for step, name, value in self._pending:
            rows.setdefault(step, {})[name] = next(read) if isinstance(value, Tensor) else float(value)
        self._pending.clear()
        for step, row in rows.items():
            self._logger.log(self._name, step, row)
            for name, number in row.items():
                if not math.isfinite(number):
                    raise Diverged(f"{name} is {number} at step {step}. {_hint(path)}")
        return row

    def _preview(self, preview: Callable[[], bytes] | None, step: int) -> None:
        """Write the preview after `step` finished steps, and send it to the logger."""
        if preview is None or self._log_images_every is None:
            return
        part = "" if self._name == "distill" else f"{self._name}-"
        path = self._previews / f"preview-{part}{step}.png"
        try:
            with torch.no_grad():
                content = preview()
        except ValueError as error:  # e.g. a value is not finite, which ends the run at the next check
            _log.warning("no preview after step %d of %s: %s", step, self._name, error)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        self._logger.log_image(self._name, step, path)

    def _check_finite(self, state: checkpoint.State, path: Path) -> None:
        tensors = checkpoint.tensors_in(state)
        finite = to_host([torch.isfinite(tensor).all() for tensor in tensors.values()])
        for name, is_finite in zip(tensors, finite, strict=True):
            if not bool(is_finite):
                raise Diverged(f"{name} is not finite after step {self._step}. {_hint(path)}")


def _hint(path: Path) -> str:
    saved = f"The last finite state is saved in {path}. " if path.exists() else ""
    return f"{saved}Try a smaller learning rate, e.g. method.lr_img (nodes: method.lr_features) divided by 10"
