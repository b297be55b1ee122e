"""Train teachers on the real set (the "squeeze" step of SRe2L), and cache their weights and a card.

A cache entry contains `network.safetensors` (weights of the last epoch), `epoch<e>.safetensors` for each early epoch in
`keep`, and the card `teacher.json` with the class name of each logit, the preprocessing, the test accuracy, and the
BatchNorm layers in order of registration.
"""

from __future__ import annotations

import json
import logging
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
from dd_bench.training.scoring import accuracy, eval_batches

Measure = Callable[[Network], float]
CARD = "teacher.json"
ACCURACIES = "accuracies.json"
_log = logging.getLogger(__name__)


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
    epoch = _epoch_of(spec, entry, training, cache)
    path = _weights_of(spec, entry, training.epochs, epoch)
    with reading_entry(entry):
        card = json.loads((entry / CARD).read_text())
        tested = card["accuracy"][str(epoch)] if card["accuracy"] else None
        class_names = tuple(card["class_names"])
    net = load_weights(spec.architecture.fresh(0, runtime.device), path)
    return Squeezed(net, class_names, tested)


def _epoch_of(spec: TeacherSpec, entry: Path, training: RealTraining, cache: Cache) -> int:
    """Return the configured epoch, or the one whose accuracy on the validation split is closest to the configured one.

    Raises:
        ValueError: the epoch depends on the accuracy, and the dataset has no validation split.
    """
    target, last = spec.config.target_accuracy, training.epochs
    if target is None:
        return int(spec.config.epoch or last)
    epochs = sorted({*(e for e in spec.config.keep if e <= last), last})
    accuracies = _validation_accuracies(spec, entry, training, epochs, cache)
    epoch = min(epochs, key=lambda e: abs(accuracies[str(e)] - target))
    _log.info(
        "teacher %s: epoch %s, with an accuracy of %.3f on validation data",
        spec.name,
        epoch,
        accuracies[str(epoch)],
    )
    return epoch


def _validation_accuracies(
    spec: TeacherSpec, entry: Path, training: RealTraining, epochs: list[int], cache: Cache
) -> dict[str, float]:
    """Return the accuracy of each epoch on the validation split. It is measured once and cached."""
    val = training.real.val
    if val is None:
        raise ValueError(
            f"{spec.where}.epoch={spec.config.epoch} requires a validation split, got none. "
            f"Use dataset.val_fraction=0.1. For a method that uses teachers, use {spec.where}.epoch=null or a number"
        )

    def build(folder: Path) -> None:
        accuracies = {}
        for epoch in epochs:
            path = _weights_of(spec, entry, training.epochs, epoch)
            net = load_weights(spec.architecture.fresh(0, training.runtime.device), path)
            accuracies[str(epoch)] = accuracy(net, eval_batches(net, val), training.runtime)
        write_atomic(folder / ACCURACIES, canonical(accuracies).encode())

    found = cache.entry("squeeze-accuracy", {"teacher": entry.name, "epochs": epochs, "val": len(val)}, build)
    with reading_entry(found):
        accuracies: dict[str, float] = json.loads((found / ACCURACIES).read_text())
    return accuracies


def _weights_of(spec: TeacherSpec, entry: Path, epochs: int, epoch: int) -> Path:
    """Return the file with the weights of `epoch`; `epochs` is the last epoch."""
    if epoch == epochs:
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
