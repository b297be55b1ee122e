"""The teacher zoo: networks trained on the real set ("squeeze"), which guide recovery and speak soft labels.

A cached artifact: `network.safetensors` after the last epoch, `epoch<e>.safetensors` of the early ones that are
kept, and `teacher.json`: class names in order, preprocessing, test accuracy, the BatchNorm layers in the order of
their registration. Logits are told apart by class *name*, never by the index of a folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dd_bench.data.dataset import RealSet
from dd_bench.data.preprocess import Normalise
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import remove, spent
from dd_bench.runtime.files import canonical, write_atomic
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.training.batches import fetch_split
from dd_bench.training.compilation import repays_compilation
from dd_bench.training.loop import train
from dd_bench.training.recipe import Recipe

Measure = Callable[[Network], float]
CARD = "teacher.json"


class TeacherConfig(BaseModel):
    """The keys of `conf/teacher/*.yaml` beside `model`.

    Attributes:
        weights: `squeeze`: trained here by `recipe`; `pretrained`: those that its constructor brings.
        classes: of pretrained weights, the class names in the order of their logits: `imagenet` or a list.
        keep: early epochs whose weights are kept beside the last; they cost their bytes and a look at the test data,
            and are no part of what identifies a teacher. Those past the last epoch are never reached.
        epoch: which of them teaches; null: the last.
        recipe: of the training; null for pretrained weights.
        mean, std: by which the pixels that pretrained weights saw were normalised, one a channel; those of
            `classes: imagenet` are known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["squeeze", "pretrained"]
    classes: Literal["imagenet"] | tuple[str, ...] | None
    keep: tuple[int, ...]
    epoch: int | None = Field(ge=1)
    recipe: Recipe | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher that a run asks for, bound to the dataset."""

    name: str
    architecture: Architecture
    config: TeacherConfig

    def __post_init__(self) -> None:
        """Raises ValueError if the configuration contradicts itself."""
        config, where = self.config, f"teachers.{self.name}"
        if config.weights == "pretrained":
            if config.classes is not None:
                _normalisation_of(self)
            return
        if (config.mean, config.std) != (None, None):
            raise ValueError(
                f"{where}.mean and .std are of pretrained weights, and weights=squeeze. Use null"
            )
        if config.recipe is None:
            raise ValueError(f"{where}.recipe=null: weights=squeeze needs a recipe to train by")
        epochs = config.recipe.epochs
        if config.epoch is not None and config.epoch > epochs:
            raise ValueError(f"{where}.epoch={config.epoch}, the training has {epochs}")
        if config.epoch not in (None, epochs, *config.keep):
            raise ValueError(
                f"{where}.epoch={config.epoch} is not kept. Use {where}.keep={[*config.keep, config.epoch]}"
            )

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the teacher, beside the data it is trained on."""
        recipe, known = self.config.recipe, {"mean", "std"} if self.config.mean is None else set()
        return {
            "architecture": self.architecture.describe(),
            **self.config.model_dump(mode="json", exclude={"recipe", "keep", *known}),
            "keep": [],
            "recipe": recipe.identity() if recipe is not None and self.config.weights == "squeeze" else None,
        }


@dataclass(frozen=True)
class Teacher:
    """A trained network, frozen.

    Attributes:
        name: of its file in `conf/teacher/`.
        net: in eval mode, its parameters without gradients.
        class_names: of its logits, after the columns were put in the order of the run's dataset.
        norms: its BatchNorm layers that an image passes, by name, in order of registration.
        digest: sha256 of its weights and class names.
        accuracy: on the test data, in [0, 1]; None where nobody measured it.
        columns: which of the network's logits are ours; None for all, as they are.
        autocast: bfloat16 where the machine has it.
    """

    name: str
    net: Network
    class_names: tuple[str, ...]
    norms: tuple[str, ...]
    digest: str
    accuracy: float | None
    columns: Tensor | None
    autocast: bool

    def logits(self, x: Tensor, mode: str = "eval", *, exact: bool = False) -> Tensor:
        """Returns the logits of inputs `(b, c, h, w)`, float32 `(b, k)`, no gradient.

        Args:
            x: inputs.
            mode: `train` normalises by the batch's own statistics; the running ones stay as they are.
            exact: in float32 whatever the machine has, for what is ranked.
        """
        norms = [m for m in self.net.modules() if isinstance(m, _BatchNorm)] if mode == "train" else []
        kept = {k: v.clone() for k, v in self.net.named_buffers()} if norms else {}
        for norm in norms:  # and nothing else: dropout would draw from nobody's seed
            norm.train()
        with (
            torch.no_grad(),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast and not exact),
        ):
            logits = self.net(x).float()
        self.net.eval()
        for name, buffer in self.net.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])
        return self.ours(logits)

    def ours(self, logits: Tensor) -> Tensor:
        """Returns the columns of the dataset's classes, in its order."""
        return logits if self.columns is None else logits[:, self.columns]


def teacher_of(
    spec: TeacherSpec, real: RealSet, cache: Cache, runtime: Runtime, measure: Measure | None
) -> Teacher:
    """Returns a teacher of the zoo, training it first unless it is in the cache.

    Args:
        spec: which.
        real: trained on its training split.
        cache: where it is kept.
        runtime: device and precision.
        measure: accuracy on held-out data, for the card alone; nobody selects by it.

    Raises:
        ValueError: the entry is damaged, or the teacher knows other classes than `real`.
        Diverged: its weights are not finite.
    """
    if spec.config.weights == "pretrained":
        return _pretrained(spec, real, runtime)
    assert spec.config.recipe is not None
    recipe = spec.config.recipe
    depends_on = {
        "name": spec.name,  # it seeds the training: two names of one recipe are two networks
        "real": [real.digest, len(real.train)],
        "preprocess": real.preprocess.digest,
        "flip": real.flip,
        "class_names": list(real.class_names),
        **{k: v for k, v in spec.describe().items() if k != "epoch"},
        "autocast": runtime.autocast,
        "device": runtime.device.type,
    }
    entry = cache.entry(
        "squeeze", depends_on, lambda folder: _squeeze(spec, recipe, real, folder, runtime, measure)
    )
    remove(entry)
    net = spec.architecture.fresh(0, runtime.device)
    last = spec.config.epoch in (None, recipe.epochs)
    path = entry / ("network.safetensors" if last else f"epoch{spec.config.epoch}.safetensors")
    if not last and not path.exists():
        kept = sorted(int(p.stem.removeprefix("epoch")) for p in entry.glob("epoch*.safetensors"))
        raise ValueError(
            f"teacher {spec.name} was trained before epoch {spec.config.epoch} was to be kept: {entry} has {kept}. Use "
            f"one of them, teachers.{spec.name}.epoch=null for the last, or train it anew: rm -r {entry}"
        )
    try:
        card = json.loads((entry / CARD).read_text())
        net.load_state_dict(load_file(path, device=str(runtime.device)))
        accuracy = card["accuracy"][str(spec.config.epoch or recipe.epochs)] if card["accuracy"] else None
        names = tuple(card["class_names"])
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the teacher {entry} is damaged ({error}). To build it anew: rm -r {entry}"
        ) from error
    return _frozen(spec.name, net, names, accuracy, real, runtime)


def _squeeze(
    spec: TeacherSpec, recipe: Recipe, real: RealSet, folder: Path, runtime: Runtime, measure: Measure | None
) -> float:
    kept = folder / "training.checkpoint.safetensors"
    done, before = spent(kept)
    seed = seed_for(0, "squeeze", spec.name)
    net = spec.architecture.fresh(seed_for(seed, "init"), runtime.device)
    measured = folder / "measured.json"
    accuracy: dict[str, float] = json.loads(measured.read_text()) if done and measured.exists() else {}

    with Progress(f"teacher {spec.name}", recipe.epochs, done) as progress:

        def after(epoch: int) -> None:
            if epoch in spec.config.keep or epoch == recipe.epochs:
                name = "network" if epoch == recipe.epochs else f"epoch{epoch}"
                _save(net, folder / f"{name}.safetensors", spec.name, epoch)
                if measure is not None:
                    accuracy[str(epoch)] = measure(net)
                    write_atomic(measured, canonical(accuracy).encode())
            progress.advance_to(epoch, {})

        train(
            net,
            fetch_split(real.train),
            len(real.train),
            recipe,
            seed=seed_for(seed, "train"),
            runtime=runtime,
            flip=real.flip,
            compiled=repays_compilation(recipe.epochs * len(real.train), real.shape, runtime),
            on_epoch=after,
            checkpoint=kept,
        )
    card = {
        "name": spec.name,
        "class_names": list(real.class_names),
        "preprocess": real.preprocess.config(),
        "shape": list(real.shape),
        "accuracy": accuracy,
        "norms": list(executed_norms(net, real.shape)),
        **spec.describe(),
        "keep": [e for e in spec.config.keep if e <= recipe.epochs],
    }
    write_atomic(folder / CARD, (canonical(card, indent=2) + "\n").encode())
    measured.unlink(missing_ok=True)
    return before


def _save(net: Network, path: Path, name: str, epoch: int) -> None:
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise Diverged(
            f"teacher {name} is not finite after epoch {epoch}. Try a smaller teachers.{name}.recipe.lr"
        )
    scratch = path.with_name(f".{path.name}")
    save_file(state, scratch)
    scratch.replace(path)


def _pretrained(spec: TeacherSpec, real: RealSet, runtime: Runtime) -> Teacher:
    names = class_names_of(spec)
    theirs = _normalisation_of(spec)
    if real.preprocess.config() != theirs.config():
        raise ValueError(
            f"teacher {spec.name} was trained under {theirs.config()}, {real.name} is preprocessed by "
            f"{real.preprocess.config()}. Use dataset.preprocess=normalise with that mean and std"
        )
    whole = replace(spec.architecture, num_classes=len(names))
    return _frozen(spec.name, whole.fresh(0, runtime.device), names, None, real, runtime)


def _normalisation_of(spec: TeacherSpec) -> Normalise:
    """Returns what the pixels that pretrained weights saw were normalised by; raises ValueError unless it is said."""
    mean, std, where = spec.config.mean, spec.config.std, f"teachers.{spec.name}"
    if mean is None and std is None and spec.config.classes == "imagenet":
        known = importlib.import_module("timm.data.constants")  # here: timm takes a second to import
        return Normalise(known.IMAGENET_DEFAULT_MEAN, known.IMAGENET_DEFAULT_STD)
    if mean is None or std is None:
        raise ValueError(
            f"{where}.mean={mean} and {where}.std={std}: by what were the pixels normalised that its weights saw? "
            f"Use '+{where}.mean=[0.5,0.5,0.5]' '+{where}.std=[0.5,0.5,0.5]' with their values, one a channel"
        )
    try:
        return Normalise(mean, std)
    except ValueError as error:
        raise ValueError(f"{where}.mean and {where}.std: {error}") from error


def class_names_of(spec: TeacherSpec) -> tuple[str, ...]:
    """Returns the class names of pretrained weights; those of ImageNet are WordNet ids, in the usual order.

    Raises:
        ValueError: they are not said.
    """
    if spec.config.classes == "imagenet":
        info = importlib.import_module("timm.data").ImageNetInfo("imagenet-1k")
        return tuple(info.label_names())
    if spec.config.classes is None:
        raise ValueError(
            f"teachers.{spec.name}.classes=null: which logit is which class? Use classes=imagenet, or a list of names"
        )
    return spec.config.classes


def _frozen(
    name: str, net: Network, names: tuple[str, ...], accuracy: float | None, real: RealSet, runtime: Runtime
) -> Teacher:
    net = net.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    missing = [c for c in real.class_names if c not in names]
    if missing:
        raise ValueError(
            f"teacher {name} does not know class {missing[0]!r} of {real.name}: it knows {_some(names)}, the dataset "
            f"has {_some(real.class_names)}. Use a teacher of this dataset, or dataset.classes of the teacher's names"
        )
    columns = None
    if names != real.class_names:
        columns = torch.tensor([names.index(c) for c in real.class_names], device=runtime.device)
    digest = hashlib.sha256("\x1f".join(names).encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    norms = executed_norms(net, real.shape)
    return Teacher(
        name, net, real.class_names, norms, digest.hexdigest(), accuracy, columns, runtime.autocast
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def executed_norms(net: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Returns the BatchNorm layers of maps with running statistics that an image `(c, h, w)` passes, as registered."""
    passed: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: passed.add(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]
    training = net.training
    net.eval()
    with torch.no_grad():
        net(next(net.parameters()).new_zeros(1, *shape))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return tuple(name for name, _ in net.named_modules() if name in passed)
