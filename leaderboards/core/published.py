"""Numbers from papers, each with its source. They are shown next to our measurements and never ranked with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dd_bench.runtime import untrusted

from .entries import ACCURACY, LINEAR_PROBE, Track

_EVALUATORS = (ACCURACY, "controls", "node", LINEAR_PROBE)
"""Evaluators whose accuracy is comparable with papers: they train networks or heads on the whole set at once."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(_Strict):
    """One printed number: an accuracy in percent, as in the source."""

    method: str
    ipc: int | None = Field(
        ge=1,
        description="None for a number without an IPC: training on the whole set, or one that is not stated",
    )
    ipc_stated: bool = Field(default=True, description="False if the source does not state the IPC")
    nodes: int | None = Field(
        default=None,
        ge=1,
        description="Number of labelled nodes of the set in total, if it is not the same in each class. `ipc`, the "
        "maximum number per class, is then the same number, as in the experiments in `conf/experiment/paper`",
    )
    mean: float = Field(ge=0, le=100)
    std: float | None = Field(ge=0, le=100)
    protocol: str = Field(min_length=1, description="evaluation protocol, as far as the source describes it")
    source: str = Field(min_length=1, description="where the number was read, in words")
    bits_of_ipc: float | None = Field(
        default=None,
        gt=0,
        description="IPC whose images in float32 have the bits of the set, if the source compares sets of equal bits. "
        "`ipc` is then None: the set can have more images of fewer bits",
    )
    verified: bool = Field(
        description="whether the number was read in a source of those who measured it. If not, it is quoted from "
        "memory, from notes on a paper, or from a table that repeats numbers of other papers, and every table marks it"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Published:
        if not self.ipc_stated and (self.ipc is not None or self.bits_of_ipc is not None):
            raise ValueError("with ipc_stated=false, ipc and bits_of_ipc must be null")
        if self.nodes is not None and self.ipc != self.nodes:
            raise ValueError(f"ipc must be {self.nodes}, the number of nodes, got {self.ipc}")
        return self

    @property
    def budget(self) -> str:
        """The IPC, `all` for the whole set, `not stated`, the number of nodes in total, or the budget in bits."""
        if self.bits_of_ipc is not None:
            return f"bits of IPC {self.bits_of_ipc:g} × float32"
        if self.nodes is not None:
            return f"{self.nodes} nodes in total"
        return str(self.ipc or "all") if self.ipc_stated else "not stated"


class PublishedSet(_Strict):
    """The published numbers of one dataset and network. They are stored in one file."""

    dataset: str
    model: str = Field(description="evaluation network: the name of a model without hyper-parameters")
    unit: Literal["percent"]
    cells: list[Published]

    @model_validator(mode="after")
    def _unique_per_source(self) -> PublishedSet:
        seen = set()
        for c in self.cells:
            if (key := (c.method, c.ipc, c.bits_of_ipc, c.source, c.protocol)) in seen:
                raise ValueError(
                    f"expected one number per method, IPC, source and protocol, got two for {key}"
                )
            seen.add(key)
        return self

    def matches(self, track: Track) -> bool:
        """Return whether the board of `track` may show these numbers.

        The metric must be accuracy, and the dataset and the architecture must be the same. The width may differ.
        """
        if track.metric != ACCURACY or track.evaluator not in _EVALUATORS:
            return False
        same_model = re.match(rf"{re.escape(self.model)}(?![A-Za-z0-9])", track.model) is not None
        return _normalized(self.dataset) == _normalized(track.dataset) and same_model

    def at(self, method: str, ipc: int) -> list[Published]:
        """Return the numbers of a method that have this IPC, or of the whole set.

        A budget in bits is no IPC, and a number whose IPC is not stated belongs to no IPC.
        """
        own = [c for c in self.cells if c.method == method and c.ipc in (ipc, None)]
        return [c for c in own if c.bits_of_ipc is None and c.ipc_stated]


def load_published(folder: Path) -> list[PublishedSet]:
    """Read every `*.json` of `folder`.

    Raises:
        ValueError: the folder is missing, a file is invalid, or two files have the same dataset and network.
    """
    if not folder.is_dir():
        raise ValueError(f"no such folder of published numbers: {folder}. Use --published FOLDER")
    sets = [_load(path) for path in sorted(folder.glob("*.json"))]
    names = [f"{_normalized(s.dataset)} and {s.model}" for s in sets]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"{folder} must have one file per dataset and network, got several files for {sorted(repeated)}"
        )
    return sorted(sets, key=lambda s: (s.dataset, s.model))


def find(sets: Sequence[PublishedSet], track: Track) -> PublishedSet | None:
    """Return the published numbers that may be shown on a board, or None."""
    return next((s for s in sets if s.matches(track)), None)


def _load(path: Path) -> PublishedSet:
    try:
        return PublishedSet.model_validate(untrusted.parse_json(untrusted.read_bytes(path)))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a valid file of published numbers: {error}") from error


def _normalized(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())  # "Fashion-MNIST" and "fashion_mnist" are equal
