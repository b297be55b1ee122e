"""Protocols of graph and node networks: which are supported, and the steps evaluated on validation data."""

from __future__ import annotations

import math
from typing import Any

from dd_bench.api import Checkpoints, Protocol


def unsupported(protocol: Protocol, evaluator: str, legacy: str, usual: str, **recipe: object) -> str | None:
    """Return why an evaluator of graphs or nodes does not support a protocol, or None.

    Args:
        protocol: the protocol.
        evaluator: name of the evaluator.
        legacy: a protocol with `selection: best_on_val` to use instead.
        usual: any other protocol to use instead.
        **recipe: further values that the recipe must have.
    """
    if protocol.selection == "best_on_val" and protocol.recipe.steps is not None:
        return (
            f"protocol {protocol.name} must set recipe.epochs instead of recipe.steps={protocol.recipe.steps}, "
            f"because selection=best_on_val selects an epoch. Use protocol={legacy}"
        )
    selection = "best_on_val" if protocol.selection == "best_on_val" else "last"
    recipe = {**recipe, "augment": "none", "cutmix": 0, "views": None}
    for key, value, expected in (
        ("selection", protocol.selection, selection),
        ("lr_grid", protocol.lr_grid, ()),
        ("labels", protocol.labels, None),
        *((f"recipe.{key}", getattr(protocol.recipe, key), expected) for key, expected in recipe.items()),
    ):
        if value != expected:
            shown = value if isinstance(value, str | float | int) else "..."
            return (
                f"protocol {protocol.name} has {key}={shown}, which evaluator {evaluator} does not support. "
                f"Use protocol={usual}"
            )
    return None


def candidate_steps(protocol: Protocol, n: int, eval_points: int) -> frozenset[int]:
    """Return the numbers of steps after which a network is evaluated on the validation data.

    With `selection: last`, there are at most `eval_points`, at equal distances, the last step included. With
    `best_on_val`, they are every `eval_every`-th epoch from `eval_from` on; epoch 0 is the untrained network. `n` is
    the number of training samples.
    """
    recipe = protocol.recipe
    if protocol.selection == "best_on_val":
        epochs = range(protocol.eval_from, recipe.epochs + 1)
        return frozenset(e * recipe.steps_per_epoch(n) for e in epochs if e % protocol.eval_every == 0)
    steps = recipe.steps or recipe.epochs * recipe.steps_per_epoch(n)
    every = math.ceil(steps / eval_points)
    return frozenset({*range(every, steps, every), steps})


class BestStep:
    """The highest score of a network on validation data so far, and its test scores at the same step."""

    def __init__(self) -> None:
        self.on_val = -1.0
        self.on_test: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """See `Stateful`."""
        return {"on_val": self.on_val, "on_test": self.on_test}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Stateful`."""
        self.on_val, self.on_test = state["on_val"], state["on_test"]


def part_of(unfinished: Checkpoints | None, network: int, part: str) -> Checkpoints | None:
    """Return the checkpoint of one of the trainings of a network, e.g. on `permuted` labels."""
    if unfinished is None:
        return None
    name = f"{unfinished.path.name}-{network}-{part}.checkpoint.safetensors"
    return unfinished._replace(path=unfinished.path.with_name(name))
