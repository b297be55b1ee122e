"""Training curves of fresh networks, for loggers: the loss, and the accuracy where a protocol evaluates a network.

The process that trains a network writes its curve to a file, because it may be a worker. The main process reads the
file and sends the curve to the loggers. Losses stay on the device until the end of the training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dd_bench.runtime.files import content_key, write_atomic

POINTS = 200
"""Maximum number of losses of a curve; each is the mean over the steps since the one before."""


class CurveFolder(NamedTuple):
    """Where the curves of the networks that are trained on one set are written.

    Attributes:
        path: folder of the files.
        trained_on: content key of the set.
    """

    path: Path
    trained_on: str

    def curve(self, model: str, seeds: Sequence[int], epochs: int, part: str = "") -> Curve:
        """Return the curve of networks with these seeds, which are trained together. `part` names one of several."""
        return Curve(self.path, self.trained_on, model, tuple(seeds), epochs, part)

    @contextmanager
    def recorded(self, model: str, seeds: Sequence[int], epochs: int, part: str = "") -> Iterator[Curve]:
        """Yield the curve of a training, see `curve`. It is written at the end, also if the training is interrupted."""
        curve, complete = self.curve(model, seeds, epochs, part), False
        try:
            yield curve
            complete = True
        finally:
            curve.save(complete)


@contextmanager
def recorded_curve(
    folder: CurveFolder | None, model: str, seeds: Sequence[int], epochs: int, part: str = ""
) -> Iterator[Curve | None]:
    """Yield the curve of a training, which is written at the end, see `CurveFolder.recorded`; None without a folder."""
    if folder is None:
        yield None
        return
    with folder.recorded(model, seeds, epochs, part) as curve:
        yield curve


class Curve:
    """The curve of one network, or of several in lock step.

    If a run is interrupted, the points so far are written, and the resumed run adds its own.
    """

    def __init__(
        self, folder: Path, trained_on: str, model: str, seeds: tuple[int, ...], epochs: int, part: str
    ):
        """Start an empty curve of a training of `epochs` epochs; see `CurveFolder.curve`."""
        self._about = {"trained_on": trained_on, "model": model, "seeds": list(seeds), "part": part}
        self._path = folder / f"{content_key(self._about)}.json"
        self._epochs = epochs
        self._sum: Tensor | float = 0.0
        self._steps = 0
        self._points: list[tuple[int, str, Tensor | float]] = []

    def add_loss(self, loss: Tensor) -> None:
        """Add the loss of a step, 0-d on the device. Does not wait for the device."""
        self._sum = self._sum + loss
        self._steps += 1

    def end_epoch(self, epoch: int) -> None:
        """Add a point after `epoch` finished epochs, if one is due."""
        due = epoch * POINTS // self._epochs > (epoch - 1) * POINTS // self._epochs
        if due and self._steps:
            self._points.append((epoch, "loss", self._sum / self._steps))
            self._sum, self._steps = 0.0, 0

    def add(self, epoch: int, name: str, value: Tensor | float) -> None:
        """Add a value after `epoch` epochs: a number, or one for each network `(r,)`."""
        self._points.append((epoch, name, value))

    def save(self, complete: bool) -> None:
        """Write the points, after those of an earlier part of the same training. Waits for the device once."""
        points = [(epoch, name, _numbers(value)) for epoch, name, value in self._points]
        if self._path.exists():
            first = min((epoch for epoch, _, _ in points), default=self._epochs + 1)
            points = [p for p in json.loads(self._path.read_text())["points"] if p[0] < first] + points
        content = {**self._about, "complete": complete, "points": points}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, json.dumps(content).encode())


def _numbers(value: Tensor | float) -> list[float]:
    return torch.as_tensor(value, dtype=torch.float64).flatten().tolist()


@dataclass(frozen=True)
class CurveReader:
    """Sends the finished curves in a folder to a logger, and removes their files.

    Attributes:
        folder: the folder.
        log: `log(loop, step, values)` of the logger. The loops are `train_<name>`, e.g. `train_loss`.
        model: the network of the run. Curves of another network or set have it in their name.
        trained_on: content key of the set that is measured.
    """

    folder: Path
    log: Callable[[str, int, dict[str, float]], None]
    model: str
    trained_on: str

    def forward(self, networks: dict[int, int], all_finished: bool = False) -> None:
        """Log the curves of the networks in `networks` (seed to index), or with `all_finished` all that are left."""
        for path in sorted(self.folder.glob("*.json")):
            curve = json.loads(path.read_text())
            known = set(curve["seeds"]) <= set(networks)
            if curve["complete"] and (known or all_finished):
                for epoch, name, values in curve["points"]:
                    named = dict(zip(self._labels(curve, networks, len(values)), values, strict=True))
                    self.log(f"train_{name}", epoch, named)
                path.unlink()

    def _labels(self, curve: dict[str, object], networks: dict[int, int], count: int) -> Iterator[str]:
        seeds, part = curve["seeds"], curve["part"]
        assert isinstance(seeds, list)
        suffix = "" if curve["model"] == self.model else f" {curve['model']}"
        suffix += "" if curve["trained_on"] == self.trained_on else f" on {str(curve['trained_on'])[:8]}"
        suffix += f" {part}" if part else ""
        names = [f"network {networks[s]}" if s in networks else f"seed {s}" for s in seeds]
        if count == len(seeds):
            yield from (name + suffix for name in names)
        else:
            yield f"mean of {names[0]} to {names[-1]}{suffix}"
