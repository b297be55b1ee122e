"""Loggers of scalars and images: a JSON Lines file (always) and Weights & Biases (optional).

`tensorboard` has a third one. A logger receives the losses of a distillation, the training curves and the scores of an
evaluation, previews of the synthetic images, and a summary at the end.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dd_bench.runtime.files import write_atomic


class Logger(ABC):
    """Base class of loggers. Only `log` is required; the other methods do nothing by default."""

    @abstractmethod
    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """Write the scalars of one step of a loop."""

    def open(self, folder: Path, run_id: str, config: dict[str, Any], title: str = "") -> None:  # noqa: B027
        """Start or resume the run `run_id`, which is shown as `title`. Files are written to `folder`."""

    def resume(self, loop: str, step: int) -> None:  # noqa: B027
        """Delete the scalars of `step` and later steps of the loop, because a resumed run writes them again."""

    def log_image(self, name: str, step: int, path: Path) -> None:  # noqa: B027
        """Write the picture in the PNG file `path`."""

    def summarise(self, values: dict[str, float | str]) -> None:  # noqa: B027
        """Write the final results of the run."""

    def close(self) -> None:  # noqa: B027
        """Finish writing."""

    def branch(self, name: str) -> Logger:
        """Return a logger for the shard `name`. Another process may log another shard at the same time."""
        return self


class Jsonl(Logger):
    """A file with lines like `{"loop": "distill", "step": 3, "loss": 0.5}`. Non-finite values are strings."""

    def __init__(self, path: Path):
        """Create a logger that appends to `path`."""
        self._path = path

    def branch(self, name: str) -> Logger:
        """See `Logger`. A shard has a separate file, because `resume` rewrites it."""
        return Jsonl(self._path.parent / name / self._path.name)

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`."""
        if not self._path.exists():
            return
        text = self._path.read_text(errors="replace")
        remaining = "".join(line + "\n" for line in text.splitlines() if _is_before(line, loop, step))
        if remaining != text:
            write_atomic(self._path, remaining.encode())

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        row = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"loop": loop, "step": step, **row}) + "\n")


def _is_before(line: str, loop: str, step: int) -> bool:
    """Return whether a line is kept when `loop` resumes at `step`. Incomplete lines from a crash are not kept."""
    try:
        row = json.loads(line)
        return bool(row["loop"] != loop or row["step"] < step)
    except (ValueError, KeyError, TypeError):
        return False


class Wandb(Logger):
    """Weights & Biases. `mode=offline` requires neither an account nor a network connection.

    Each loop has its own step axis, `<loop>/step`. A resumed run logs the steps after its last checkpoint again, and
    wandb's default axis would drop them, because their step number decreases.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        mode: Literal["online", "offline", "disabled"],
        tags: list[str],
    ):
        """Store the arguments of `wandb.init`. The run starts with `open`."""
        self._settings: dict[str, Any] = {"project": project, "entity": entity, "mode": mode, "tags": tags}
        self._run: Any = None

    def open(self, folder: Path, run_id: str, config: dict[str, Any], title: str = "") -> None:
        """See `Logger`."""
        import wandb  # the import takes one to two seconds

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            dir=str(folder), id=run_id, name=title or None, resume="allow", config=config, **self._settings
        )

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`. Define the step axis of the loop; nothing is deleted."""
        if self._run is not None:
            self._run.define_metric(f"{loop}/*", step_metric=f"{loop}/step")

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`. Does nothing before `open` and after `close`."""
        if self._run is not None:
            self._run.log({f"{loop}/step": step, **{f"{loop}/{name}": v for name, v in values.items()}})

    def log_image(self, name: str, step: int, path: Path) -> None:
        """See `Logger`."""
        if self._run is not None:
            import wandb

            self._run.log({f"{name}/step": step, f"{name}/images": wandb.Image(str(path))})

    def summarise(self, values: dict[str, float | str]) -> None:
        """See `Logger`."""
        if self._run is not None:
            self._run.summary.update(values)

    def close(self) -> None:
        """See `Logger`."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class MultiLogger(Logger):
    """Forward every call to several loggers.

    In a configuration, each logger has a name, so that `logger=[wandb,tensorboard]` selects both.
    """

    def __init__(self, loggers: Sequence[Logger] = (), **named: Logger):
        self._loggers = [*loggers, *named.values()]

    def __bool__(self) -> bool:
        """Return whether there is a logger."""
        return bool(self._loggers)

    def open(self, folder: Path, run_id: str, config: dict[str, Any], title: str = "") -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.open(folder, run_id, config, title)

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.log(loop, step, values)

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.resume(loop, step)

    def log_image(self, name: str, step: int, path: Path) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.log_image(name, step, path)

    def summarise(self, values: dict[str, float | str]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.summarise(values)

    def close(self) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.close()

    def branch(self, name: str) -> Logger:
        """See `Logger`."""
        return MultiLogger([logger.branch(name) for logger in self._loggers])
