"""The scores of an evaluation as they come in, a line a network, so that a killed run goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dd_bench.records.record import Score
from dd_bench.runtime.files import write_atomic


class _Line(BaseModel):
    """All scores of one network, the wall-clock since the line before, and remarks on the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: list[Score]
    seconds: float
    notes: list[str] = []


class ScoreLog:
    """One file of lines, each a network.

    Attributes:
        scores: what is there, what was added included.
        seconds_before: wall-clock that earlier, killed parts of this evaluation spent on what is there.
    """

    def __init__(self, path: Path | None):
        """Reads what is there; a line that a crash cut short is dropped. None: nothing is kept."""
        self._path = path
        self.scores: list[Score] = []
        self._notes: list[tuple[int, str]] = []
        self.seconds_before = 0.0
        if path is None or not path.exists():
            return
        text = path.read_text(errors="replace")
        whole = [(text, line) for text in text.splitlines() if (line := _parse(text)) is not None]
        for _, line in whole:
            self.scores += line.scores
            self._notes += [(line.scores[0].set, note) for note in line.notes if line.scores]
            self.seconds_before += line.seconds
        kept = "".join(text + "\n" for text, _ in whole)
        if kept != text:  # also where nothing but the end of the last line is missing
            write_atomic(path, kept.encode())

    def add(self, scores: list[Score], seconds: float, notes: Sequence[str] = ()) -> None:
        """Writes all scores of a network through to the disk.

        Raises:
            OSError: they could not be written.
        """
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(
                _Line(scores=scores, seconds=round(seconds, 3), notes=list(notes)).model_dump_json() + "\n"
            )
            file.flush()
            os.fsync(file.fileno())
        self.scores += scores

    def notes(self, of_set: int) -> list[str]:
        """Returns the remarks on the networks of a set whose scores are there."""
        return [note for index, note in self._notes if index == of_set]

    def finished(self, of_set: int) -> frozenset[int]:
        """Returns the networks of a set whose scores are there."""
        return frozenset(s.network for s in self.scores if s.set == of_set)

    def remove(self) -> None:
        """Removes the file: the record holds the scores now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _parse(text: str) -> _Line | None:
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None
