"""Which bytes repeat on the device, and whether ResNet18 with BatchNorm is trained in lock step under bf16."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from cuda_parts.card import Card, Row
from cuda_parts.steps import smallest
from dd_bench.pipeline.compose import RunConfig
from dd_bench.pipeline.run import distill
from dd_bench.runtime import interruption
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.synthetic import storage

ITERATIONS = 6


def rows(card: Card) -> Iterator[Row]:
    """Yield the rows of ResNet18, and then those of repeated and of resumed runs."""
    yield from resnet18(card)
    for method in ("dm", "dc"):
        yield from repeated(card, method)
    yield evaluated_twice(card)


def resnet18(card: Card) -> Iterator[Row]:
    """Train two to four networks in lock step and one after the other."""
    networks, epochs = (2, 2) if card.small else (4, 40)
    precisions = ("fp32",) if card.small else ("bf16", "fp32")
    model = "convnet" if card.small else "resnet18_bn"
    for precision in precisions:
        for together in (networks, 1):
            record, warned = card.run([
                "method=random", "dataset=digits", f"model={model}", "protocol=dc-300", "ipc=10",
                f"protocol.recipe.epochs={epochs}", "protocol.recipe.milestones=[]",
                f"evaluator.num_networks={networks}", f"runtime.precision={precision}", f"runtime.together={together}",
                *(["model.width=8"] if card.small else []),
            ])  # fmt: skip
            yield {
                "table": "ResNet18 with BatchNorm in lock step",
                "model": model,
                "precision": precision,
                "in lock step": together,
                "evaluate, s": round(record.seconds.get("evaluate", 0.0), 2),
                "accuracy, %": round(100 * record.summary().mean, 2),
                "warning": "; ".join(warned)[:300],
            }


def repeated(card: Card, method: str) -> Iterator[Row]:
    """Distil twice without interruption, and once with an interruption in the middle."""
    overrides = smallest(method) if card.small else ["dataset=digits", "ipc=10", "model.width=32"]
    overrides += ["method.outer=2", "method.inner_epochs=2"] if method == "dc" and not card.small else []
    for runtime in ("exact", "auto"):
        run = [f"method={method}", f"runtime={runtime}", *overrides, f"method.iterations={ITERATIONS}"]
        with tempfile.TemporaryDirectory() as folder:
            whole, again = (distilled(card, [*run, f"out={folder}/{name}"]) for name in ("whole", "again"))
            resumed = distilled(card, [*run, f"out={folder}/resumed"], killed_at=2)
        for what, found in (("distilled again", again), ("interrupted and resumed", resumed)):
            yield same(f"{method}, {what}", runtime, whole == found)


def distilled(card: Card, overrides: Sequence[str], killed_at: int | None = None) -> str:
    """Distil a set and return its digest; with `killed_at`, interrupt the run after this step and resume it."""
    config = RunConfig.of([f"runtime.device={card.device}", *overrides])
    if killed_at is not None:
        try:
            with interruption.handled(), interrupted_at(killed_at):
                distill(config)
        except interruption.Interrupted:
            pass
        else:
            raise RuntimeError("the run has not been interrupted")
    (folder,) = distill(config)
    return storage.digest(folder)


@contextmanager
def interrupted_at(last: int) -> Iterator[None]:
    """Send SIGTERM to this process in step `last` of an outer loop."""
    original = OuterLoop.steps

    def steps(loop: OuterLoop, *args: Any, **kwargs: Any) -> Iterator[int]:
        for step in original(loop, *args, **kwargs):
            if step == last:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    with mock.patch.object(OuterLoop, "steps", steps):
        yield


def evaluated_twice(card: Card) -> Row:
    """Evaluate a random set twice with `runtime=exact`, and compare the scores."""
    size = ["ipc=10", "model.width=32", "protocol=dsa-1000"]
    size = ["ipc=1", "model.width=8", "protocol=quick"] if card.small else size
    short = ["protocol.recipe.epochs=20", "protocol.recipe.milestones=[]", "evaluator.num_networks=2"]
    scores = [
        card.run(["runtime=exact", "method=random", "dataset=digits", *size, *short])[0].scores
        for _ in range(2)
    ]
    return same("random, evaluated again", "exact", scores[0] == scores[1])


def same(what: str, runtime: str, equal: bool) -> Row:
    return {
        "table": "The same bytes again",
        "what": what,
        "runtime": runtime,
        "same bytes": "yes" if equal else "no",
    }
