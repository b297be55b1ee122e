"""The scores of an evaluation as they come in, one line each, so that a killed run goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from dd_bench.record import Score


class Journal:
    """Lines of `Score` in one file."""

    def __init__(self, path: Path | None):
        """Reads what is there; a line that a crash cut short is dropped. None: nothing is kept."""
        self._path = path
        self.scores: list[Score] = []
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.scores.append(Score.model_validate_json(line))
                except ValidationError:
                    continue
            path.write_text("".join(score.model_dump_json() + "\n" for score in self.scores))

    def add(self, score: Score) -> None:
        """Writes a score through to the disk.

        Raises:
            OSError: it could not be written.
        """
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(score.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.scores.append(score)

    def finished(self, of_set: int) -> frozenset[int]:
        """Returns the networks of a set whose scores are there."""
        return frozenset(s.network for s in self.scores if s.set == of_set)
