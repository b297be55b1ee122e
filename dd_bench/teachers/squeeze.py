"""Train teachers on the real set (the "squeeze" step of SRe2L), and cache their weights and a card.

A cache entry contains `network.safetensors` (weights of the last epoch), `epoch<e>.safetensors` for each early epoch in
`keep`, and the card `teacher.json` with the class name of each logit, the preprocessing, the test accuracy, and the
BatchNorm layers in order of registration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dd_bench.data.dataset import RealSet
from dd_bench.models.network import Network, executed_norms
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import saved_progress
from dd_bench.runtime.files import canonical, write_atomic
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.teachers.trained_network import (
    WEIGHTS,
    RealTraining,
    cache_entry,
    checkpoint_in,
    load_weights,
    reading_entry,
    save_weights,
    trained_network,
)

Measure = Callable[[Network], float]
CARD = "teacher.json"


class Squeezed(NamedTuple):
    """A network trained on the real set, the class names of its logits, and its test accuracy in [0, 1] or None."""

    net: Network
    class_names: tuple[str, ...]
    accuracy: float | None


def squeezed_network(
    spec: TeacherSpec, real: RealSet, cache: Cache, runtime: Runtime, measure: Measure | None
) -> Squeezed:
    """Return the network of a teacher with `weights: squeeze`, training it if it is not cached.

    Args:
        spec: the teacher.
        real: the real set; the teacher is trained on its training split.
        cache: cache of trained networks.
        runtime: device and precision.
        measure: a function that returns the test accuracy of a network. The accuracy is only written to the card; it
            is not used to select anything. If `measure` is None, no accuracy is measured.

    Raises:
        ValueError: the cache entry is damaged, or does not contain the weights of the requested epoch.
        Diverged: the weights are not finite.
    """
    assert spec.config.recipe is not None
    training = RealTraining(real, spec.architecture, spec.config.recipe, runtime)
    key = training.identity() | {
        "name": spec.name,  # the training seed depends on it, so two names with one recipe give two networks
        "class_names": list(real.class_names),
        "classes": spec.config.classes,
    }
    if (
        training.recipe.steps is not None
    ):  # older entries of such recipes contain the weights of the first epoch
        key["epochs"] = training.epochs
    entry = cache_entry(cache, "squeeze", key, lambda folder: _train(spec, training, folder, measure))
    path = _weights_of(spec, entry, training.epochs)
    with reading_entry(entry):
        card = json.loads((entry / CARD).read_text())
        epoch = spec.config.epoch or training.epochs
        accuracy = card["accuracy"][str(epoch)] if card["accuracy"] else None
        class_names = tuple(card["class_names"])
    net = load_weights(spec.architecture.fresh(0, runtime.device), path)
    return Squeezed(net, class_names, accuracy)


def _weights_of(spec: TeacherSpec, entry: Path, epochs: int) -> Path:
    """Return the file with the weights of the configured epoch; `epochs` is the last epoch."""
    epoch = spec.config.epoch
    if epoch in (None, epochs):
        return entry / WEIGHTS
    path = entry / f"epoch{epoch}.safetensors"
    if not path.exists():
        found = sorted(int(p.stem.removeprefix("epoch")) for p in entry.glob("epoch*.safetensors"))
        raise ValueError(
            f"{spec.where}.epoch must be one of the epochs saved in {entry}, {found}, got {epoch}. Use one of them, "
            f"{spec.where}.epoch=null for the last epoch, or delete the entry to train the teacher again: rm -r {entry}"
        )
    return path


def _train(spec: TeacherSpec, training: RealTraining, folder: Path, measure: Measure | None) -> float:
    """Train the teacher, write its weights and card, and return the seconds that earlier, killed attempts took."""
    real, epochs, title = training.real, training.epochs, f"teacher {spec.name}"
    checkpoint, measured = checkpoint_in(folder), folder / "measured.json"
    resumes = saved_progress(checkpoint)[0] > 0 and measured.exists()
    accuracy: dict[str, float] = json.loads(measured.read_text()) if resumes else {}

    def after_epoch(epoch: int, net: Network) -> None:
        if epoch != epochs and epoch not in spec.config.keep:
            return
        path = folder / (WEIGHTS if epoch == epochs else f"epoch{epoch}.safetensors")
        knob = f"{spec.where}.recipe.lr"
        save_weights(net, path, title=title, epoch=epoch, knob=knob, lr=training.recipe.lr)
        if measure is not None:
            accuracy[str(epoch)] = measure(net)
            write_atomic(measured, canonical(accuracy).encode())

    seed = seed_for(0, "squeeze", spec.name)
    net, seconds = trained_network(training, seed, checkpoint, title=title, on_epoch=after_epoch)
    card = {
        "name": spec.name,
        "class_names": list(real.class_names),
        "preprocess": real.preprocess.config(),
        "shape": list(real.shape),
        "accuracy": accuracy,
        "norms": list(executed_norms(net, real.shape)),
        **spec.describe(),
        "keep": [e for e in spec.config.keep if e <= epochs],
    }
    write_atomic(folder / CARD, (canonical(card, indent=2) + "\n").encode())
    measured.unlink(missing_ok=True)
    return seconds
