"""An outer step of methods: milliseconds after a warm-up, and the places where Python waits for the device.

The waits are those that `torch.cuda.set_sync_debug_mode("warn")` finds. They are counted in other steps than the time.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from hydra.utils import get_class

from cuda_parts.card import Card, Row
from dd_bench.pipeline.compose import RunConfig
from dd_bench.pipeline.run import distill
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.runtime.outer_loop import OuterLoop

ROOT = Path(__file__).resolve().parents[2]


class Plan(NamedTuple):
    """How many steps of a method are warm-up, are timed, and have their waits counted, and its overrides."""

    warm_up: int
    timed: int
    counted: int
    overrides: Sequence[str] = ()


PLANS = {
    "dm": Plan(10, 50, 10),
    "mtt": Plan(
        3, 10, 2,
        ("method.experts.count=2", "method.experts.recipe.epochs=3", "method.window.stop=2"),
    ),
    "sre2l": Plan(
        10, 100, 10,
        ("model.norm=batchnorm", "teachers.convnet_bn.recipe.epochs=2"),
    ),
    "dc": Plan(1, 2, 1),
}  # fmt: skip


def rows(card: Card) -> Iterator[Row]:
    """Yield a row for each method."""
    dataset = card.datasets()[0]
    for name, plan in PLANS.items():
        overrides = [f"dataset={dataset}", "ipc=10", *plan.overrides]
        if card.small:
            plan, overrides = Plan(1, 1, 1), smallest(name)
        found = Steps(card, plan)
        with tempfile.TemporaryDirectory() as folder, found.observed():
            distill(
                RunConfig.of([
                    f"method={name}", *overrides, f"method.iterations={found.total}", f"runtime.device={card.device}",
                    "log_every=100000", "checkpoint_seconds=100000", f"out={folder}",
                ])
            )  # fmt: skip
        yield {
            "table": "A step of distillation",
            "method": name,
            "dataset": "digits" if card.small else dataset,
            "steps": plan.timed,
            "ms/step": round(1000 * found.seconds / plan.timed, 2),
            "waits/step": round(found.waits.total() / plan.counted, 1),
            "where": "; ".join(f"{place} ×{n / plan.counted:g}" for place, n in found.waits.most_common(4)),
            "data": dict(found.waits),
        }


def smallest(method: str) -> list[str]:
    """Return the overrides of the smallest run of a method."""
    smoke = get_class(shipped_yaml("method", method)["_target_"]).smoke
    values = [f"method.{key}={value}" for key, value in smoke.items() if key != "iterations"]
    teacher = [
        "model.norm=batchnorm",
        "teachers.convnet_bn.recipe.epochs=1",
        "teachers.convnet_bn.model.width=8",
    ]
    return ["dataset=digits", "ipc=1", "model.width=8", *values, *(teacher if method == "sre2l" else [])]


class Steps:
    """The time and the waits of the steps of the first loop that has `total` iterations.

    Attributes:
        seconds: of the timed steps.
        waits: of the counted steps, by `file:line`.
    """

    def __init__(self, card: Card, plan: Plan) -> None:
        """Observe the loops of one run."""
        self.total = sum(plan[:3])
        self.seconds = 0.0
        self.waits: Counter[str] = Counter()
        self._card, self._plan, self._done = card, plan, False

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Observe the outer loops inside the context."""
        original = OuterLoop.steps

        def steps(loop: OuterLoop, iterations: int, *args: Any, **kwargs: Any) -> Iterator[int]:
            inner = original(loop, iterations, *args, **kwargs)
            first = iterations == self.total and not self._done
            yield from self._observe(inner) if first else inner

        with mock.patch.object(OuterLoop, "steps", steps):
            yield

    def _observe(self, steps: Iterator[int]) -> Iterator[int]:
        self._done = True
        plan, began = self._plan, 0.0
        with warnings.catch_warnings(record=True) as caught:
            for step in steps:
                if step == plan.warm_up:
                    began = self._card.time()
                if step == plan.warm_up + plan.timed:
                    self.seconds = self._card.time() - began
                    self._warn("warn")
                    warnings.simplefilter("always")
                    caught.clear()
                yield step
                if step == self.total - 1:  # before the loop saves its last state
                    self._warn("default")
            self.waits.update(place(w) for w in caught if "synchronizing CUDA operation" in str(w.message))

    def _warn(self, mode: str) -> None:
        if self._card.device == "cuda":
            torch.cuda.set_sync_debug_mode(mode)


def place(warning: warnings.WarningMessage) -> str:
    path = Path(warning.filename)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{warning.lineno}"
