"""Where logged scalars go: a JSON-lines file (default), Weights & Biases beside it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

from dd_bench.runtime.files import write_atomic


class Logger(ABC):
    """Takes scalars by loop and step; a logger that has nothing to open, drop or close leaves those methods."""

    @abstractmethod
    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """Writes the scalars of one step of a loop."""

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:  # noqa: B027
        """Starts, or goes on with, the run `run_id`; files go under `folder`."""

    def resume(self, loop: str, step: int) -> None:  # noqa: B027
        """Drops what was written for `step` of the loop and later: a resumed run writes it again."""

    def close(self) -> None:  # noqa: B027
        """Finishes writing."""

    def branch(self, name: str) -> Logger:
        """Returns the logger of a piece of the work that several processes may share."""
        return self


class Jsonl(Logger):
    """A line a step: `{"loop": "distill", "step": 3, "loss": 0.5}`; a value that is not finite is text."""

    def __init__(self, path: Path):
        """Appends to `path`."""
        self._path = path

    def branch(self, name: str) -> Logger:
        """See `Logger`; a file of its own, since a resume rewrites it."""
        return Jsonl(self._path.parent / name / self._path.name)

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`."""
        if not self._path.exists():
            return
        text = self._path.read_text(errors="replace")
        kept = "".join(line + "\n" for line in text.splitlines() if _is_before(line, loop, step))
        if kept != text:
            write_atomic(self._path, kept.encode())

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        row = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"loop": loop, "step": step, **row}) + "\n")


def _is_before(line: str, loop: str, step: int) -> bool:
    """Whether a line stays when `loop` resumes at `step`; one that a crash cut short does not."""
    try:
        row = json.loads(line)
        return bool(row["loop"] != loop or row["step"] < step)
    except (ValueError, KeyError, TypeError):
        return False


class Wandb(Logger):
    """Weights & Biases; `mode=offline` needs no account and no network.

    Each loop has its own step axis, `<loop>/step`: a resumed run logs again what its last checkpoint lacks, and
    wandb would drop a step that goes back.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        mode: Literal["online", "offline", "disabled"],
        tags: list[str],
    ):
        """Takes what `wandb.init` takes; the run itself starts with `open`."""
        self._settings: dict[str, Any] = {"project": project, "entity": entity, "mode": mode, "tags": tags}
        self._run: Any = None

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        """See `Logger`."""
        import wandb  # a second or two of import that the other logger does not need

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(dir=str(folder), id=run_id, resume="allow", config=config, **self._settings)

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`; nothing is dropped, the axis of the loop is set up."""
        if self._run is not None:
            self._run.define_metric(f"{loop}/*", step_metric=f"{loop}/step")

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`; outside `open` and `close` there is no run to log to."""
        if self._run is not None:
            self._run.log({f"{loop}/step": step, **{f"{loop}/{name}": v for name, v in values.items()}})

    def close(self) -> None:
        """See `Logger`."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class MultiLogger(Logger):
    """Passes everything on to each of its loggers."""

    def __init__(self, loggers: list[Logger]):
        """Takes the loggers."""
        self._loggers = loggers

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.open(folder, run_id, config)

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.log(loop, step, values)

    def resume(self, loop: str, step: int) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.resume(loop, step)

    def close(self) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.close()

    def branch(self, name: str) -> Logger:
        """See `Logger`."""
        return MultiLogger([logger.branch(name) for logger in self._loggers])
