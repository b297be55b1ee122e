"""Where logged scalars go: a JSON-lines file (default), Weights & Biases beside it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal


class Logger(ABC):
    """Takes scalars by step."""

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Writes the scalars of one step."""

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        """Starts, or goes on with, the run `run_id`; files go under `folder`."""

    def resume(self, step: int) -> None:
        """Drops what was written for `step` and later: a resumed run writes it again."""

    def close(self) -> None:
        """Finishes writing."""


class Jsonl(Logger):
    """One line a step: `{"step": 3, "loss": 0.5}`; a value that is not finite is written as text."""

    def __init__(self, path: Path):
        """Appends to `path`."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def resume(self, step: int) -> None:
        """See `Logger`."""
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step_of(line) < step]
            self._path.write_text("".join(line + "\n" for line in kept))

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        row = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that a crash cut short, so that it is dropped."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Wandb(Logger):
    """Weights & Biases; `mode=offline` needs no account and no network."""

    def __init__(self, *, project: str, entity: str | None, mode: Literal["online", "offline", "disabled"], tags: list[str]):
        """Takes what `wandb.init` takes; the run itself starts with `open`."""
        self._settings: dict[str, Any] = {"project": project, "entity": entity, "mode": mode, "tags": tags}
        self._run: Any = None

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        """See `Logger`."""
        import wandb  # a second or two of import that the other logger does not need

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(dir=str(folder), id=run_id, resume="allow", config=config, **self._settings)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """See `Logger`."""
        if self._run is not None:
            self._run.finish(quiet=True)
            self._run = None


class Several(Logger):
    """Passes everything on to each of its loggers."""

    def __init__(self, loggers: list[Logger]):
        """Takes the loggers."""
        self._loggers = loggers

    def open(self, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.open(folder, run_id, config)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.log(step, values)

    def resume(self, step: int) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.resume(step)

    def close(self) -> None:
        """See `Logger`."""
        for logger in self._loggers:
            logger.close()
