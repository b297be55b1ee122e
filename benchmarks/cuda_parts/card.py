"""The sizes of a check on a card and of its rehearsal on a CPU, and functions that several parts share."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dd_bench.data.dataset import RealSet
from dd_bench.pipeline.compose import RunConfig, load_real_set
from dd_bench.pipeline.run import run
from dd_bench.records.config_diff import shipped_config
from dd_bench.records.record import Record
from dd_bench.runtime.runtime import Runtime, RuntimeConfig, resolve

Row = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """Where and at which size the parts run.

    Attributes:
        device: `cuda`, or `cpu` for a rehearsal.
        small: whether every part runs at its smallest size.
    """

    device: str
    small: bool

    def runtime(self, precision: str = "auto") -> Runtime:
        """Resolve `runtime=auto` on this device, and set torch's flags for it."""
        config = shipped_config("runtime", "auto") | {"device": self.device, "precision": precision}
        return resolve(RuntimeConfig.model_validate(config))

    def real_set(self) -> RealSet:
        """Return Fashion-MNIST on the device, or the digits if its files are missing."""
        found = load_real_set([f"dataset={self.datasets()[0]}"])[0]
        return found.to(torch.device(self.device))

    def datasets(self) -> list[str]:
        """Return the datasets that are available without a download, the largest first."""
        try:
            if not self.small:
                load_real_set(["dataset=fashion_mnist"])
                return ["fashion_mnist", "digits"]
        except FileNotFoundError:
            pass
        return ["digits"]

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def time(self) -> float:
        """Wait until the device has finished, and return the time of a clock in seconds."""
        self.synchronize()
        return time.perf_counter()

    def run(self, overrides: Sequence[str]) -> tuple[Record, list[str]]:
        """Do `dd-bench run OVERRIDES` in a temporary folder, and return the record and the warnings."""
        with tempfile.TemporaryDirectory() as folder, warnings_of("dd_bench") as warned:
            record = run(RunConfig.of([f"runtime.device={self.device}", *overrides, f"out={folder}"]))
        return record, warned


CARD = Card("cuda", small=False)
REHEARSAL = Card("cpu", small=True)


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """Collect the warnings of a logger."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
