"""A log of scores with one line per network, so that a killed evaluation continues where it stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dd_bench.records.record import Score
from dd_bench.runtime.files import write_atomic


class _Line(BaseModel):
    """All scores of one network, the wall-clock seconds since the previous line, and notes on the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: list[Score]
    seconds: float
    notes: list[str] = []


class ScoreLog:
    """A JSON Lines file with the scores of an evaluation, one line per network.

    Attributes:
        scores: all scores that were read from the file or added later.
        seconds_before: wall-clock seconds that earlier, killed attempts spent on the scores in the file.
    """

    def __init__(self, path: Path):
        """Read the file if it exists. Incomplete lines, which a crash can leave, are removed from the file."""
        self._path = path
        self.scores: list[Score] = []
        self._notes: list[tuple[int, str]] = []
        self.seconds_before = 0.0
        if not path.exists():
            return
        text = path.read_text(errors="replace")
        valid = [(raw, line) for raw in text.splitlines() if (line := _parse(raw)) is not None]
        for _, line in valid:
            self.scores += line.scores
            self._notes += [(line.scores[0].set, note) for note in line.notes if line.scores]
            self.seconds_before += line.seconds
        repaired = "".join(raw + "\n" for raw, _ in valid)
        if repaired != text:  # also if only the last newline is missing
            write_atomic(path, repaired.encode())

    def add(self, scores: list[Score], seconds: float, notes: Sequence[str] = ()) -> None:
        """Append all scores of a network and flush them to disk.

        Raises:
            OSError: the scores could not be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(
                _Line(scores=scores, seconds=round(seconds, 3), notes=list(notes)).model_dump_json() + "\n"
            )
            file.flush()
            os.fsync(file.fileno())
        self.scores += scores

    def notes(self, set_index: int) -> list[str]:
        """Return the notes on the networks of a set that were read from the file."""
        return [note for index, note in self._notes if index == set_index]

    def finished(self, set_index: int) -> frozenset[int]:
        """Return the indices of the networks of a set that have scores."""
        return frozenset(s.network for s in self.scores if s.set == set_index)

    @property
    def unfinished(self) -> Path:
        """Folder with the states of networks whose training has not finished."""
        return self._path.with_name("networks")

    @property
    def curves(self) -> Path:
        """Folder of the training curves that were not sent to a logger yet."""
        return self.unfinished / "curves"

    def remove(self) -> None:
        """Delete the file and `unfinished`. Call this after the scores were saved in the record."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.unfinished, ignore_errors=True)


def _parse(text: str) -> _Line | None:
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None
