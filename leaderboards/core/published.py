"""Numbers from papers, each with its source: shown beside what was measured here, never ranked with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .entries import ACCURACY, Track

PLAIN = (ACCURACY, "controls")
"""Evaluators whose accuracy is what papers print: of fresh networks that saw the whole set at once."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(_Strict):
    """One printed number: an accuracy in percent, as the source prints it."""

    method: str
    ipc: int | None = Field(ge=1, description="None for a number that has no IPC: training on the whole set")
    mean: float = Field(ge=0, le=100)
    std: float | None = Field(ge=0, le=100)
    protocol: str = Field(min_length=1, description="how it was evaluated, as far as the source tells")
    source: str = Field(min_length=1, description="where the number was read, in words")
    verified: bool = Field(
        description="read in that source; false: from memory, and so marked in every table"
    )


class PublishedSet(_Strict):
    """The published numbers of one dataset and network: one file."""

    dataset: str
    model: str = Field(description="network evaluated on: the name of a model, its knobs left out")
    unit: Literal["percent"]
    cells: list[Published]

    @model_validator(mode="after")
    def _one_number_a_source(self) -> PublishedSet:
        seen = set()
        for c in self.cells:
            if (key := (c.method, c.ipc, c.source, c.protocol)) in seen:
                raise ValueError(f"two numbers for {key}")
            seen.add(key)
        return self

    def suits(self, track: Track) -> bool:
        """Whether these numbers may stand on a board: same dataset and architecture (any width), accuracy."""
        if track.metric != ACCURACY or track.evaluator not in PLAIN:
            return False
        same_model = re.match(rf"{re.escape(self.model)}(?![A-Za-z0-9])", track.model) is not None
        return _plain(self.dataset) == _plain(track.dataset) and same_model

    def at(self, method: str, ipc: int) -> list[Published]:
        """Returns the numbers of a method at an IPC, or at none."""
        return [c for c in self.cells if c.method == method and c.ipc in (ipc, None)]


def load_published(folder: Path) -> list[PublishedSet]:
    """Reads every `*.json` of `folder`.

    Raises:
        ValueError: the folder is missing, a file is not valid, or two files are about one dataset and network.
    """
    if not folder.is_dir():
        raise ValueError(f"no such folder of published numbers: {folder}")
    sets = [_load(path) for path in sorted(folder.glob("*.json"))]
    names = [f"{_plain(s.dataset)} and {s.model}" for s in sets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"{folder} has several files about {sorted(twice)}; wanted one a dataset and network"
        )
    return sorted(sets, key=lambda s: (s.dataset, s.model))


def find(sets: Sequence[PublishedSet], track: Track) -> PublishedSet | None:
    """Returns the published numbers that suit a board, if any."""
    return next((s for s in sets if s.suits(track)), None)


def _load(path: Path) -> PublishedSet:
    try:
        return PublishedSet.model_validate(json.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        raise ValueError(f"{path} holds no valid published numbers: {error}") from error


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())  # Fashion-MNIST, fashion_mnist
