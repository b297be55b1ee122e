"""Accuracy of fresh networks under attack and under common corruptions, beside the clean one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    Measurement,
    Preprocess,
    Protocol,
    RealSet,
    SyntheticSet,
    accuracy,
    seed_for,
    seeded,
)

from ._scoring import fresh_networks_on, measurement, remarks
from .accuracy import Accuracy

CORRUPTIONS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "noise": ("RandomGaussianNoise", tuple({"std": s} for s in (0.04, 0.06, 0.08, 0.09, 0.10))),
    "impulse": ("RandomSaltAndPepperNoise", tuple({"amount": a} for a in (0.01, 0.02, 0.03, 0.05, 0.07))),
    "blur": (
        "RandomGaussianBlur",
        tuple({"kernel_size": 5, "sigma": (s, s)} for s in (0.4, 0.6, 0.7, 0.8, 1.0)),
    ),
    "brightness": (
        "RandomBrightness",
        tuple({"brightness": (1 + b, 1 + b)} for b in (0.05, 0.1, 0.15, 0.2, 0.3)),
    ),
    "contrast": ("RandomContrast", tuple({"contrast": (c, c)} for c in (0.75, 0.5, 0.4, 0.3, 0.15))),
}
"""kornia's augmentation of each corruption, and its knobs at five severities: those of CIFAR-10-C (Hendrycks and
Dietterich, ICLR 2019) as recalled, where it has them. Contrast is a factor on the pixels, brightness a shift."""


class Robustness(Accuracy):
    """Accuracy on `images` test images, the same for every set and network, as they are and changed.

    - `clean`: as they are;
    - `fgsm`, `robust_accuracy` (PGD, `steps` steps of eps / 8 from a random start) and, if wanted, `autoattack` (the
      toolbox's ensemble: APGD on two losses, DeepFool, Square): each pixel within `eps`, in units of the range [0, 1];
      attacks know the network and its preprocessing;
    - `corrupted:KIND`: the mean over five severities, and `corrupted`: over all kinds.

    The attacks are those of the adversarial-robustness-toolbox, the corruptions kornia's. Networks are attacked in
    float32, without augmentation.
    """

    main_metric = "robust_accuracy"
    smoke = ("evaluator.num_networks=2", "evaluator.images=9", "evaluator.steps=2")

    def __init__(self, *, num_networks: int, images: int, eps: float, steps: int, autoattack: bool):
        """Takes the number of fresh networks, of test images, the bound, PGD's steps, and whether AutoAttack runs.

        Raises:
            ValueError: one of them is out of range.
        """
        super().__init__(num_networks=num_networks)
        if images < 1 or steps < 1:
            raise ValueError(f"evaluator.images={images}, evaluator.steps={steps}: wanted at least one")
        if not 0 < eps < 1:
            raise ValueError(f"evaluator.eps={eps}: wanted a part of the pixels' range, as 0.0314 for 8/255")
        self.images, self.eps, self.steps, self.autoattack = images, eps, steps, autoattack

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`: a network that test data chose is none to attack with them."""
        if protocol.selection == "best_on_test":
            return f"protocol {protocol.name} selects on test data. Use one with selection=last"
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`.

        Raises:
            ImportError: the toolbox is not installed.
        """
        toolbox()
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, art = fresh_networks_on(syn, real, ctx), toolbox()
        yield remarks(fresh)
        draws = torch.Generator().manual_seed(seed_for(ctx.seed, "attacked"))
        index = torch.randperm(len(real.test), generator=draws)[: self.images].sort().values.to(ctx.device)
        x, y = real.test.pixels(index).float() / 255, real.test.labels[index]
        changed = {
            kind: [corrupted(x, kind, severity, seed_for(ctx.seed, kind, severity)) for severity in range(5)]
            for kind in CORRUPTIONS
        }
        seeds, exact = self.seeds(ctx), ctx.runtime.in_float32()

        def right(net: nn.Module, pixels: Tensor) -> float:
            return accuracy(net, zip(pixels.split(1000), y.split(1000), strict=True), exact)

        for network, net in fresh.networks(seeds, self.num_networks):
            victim = FromPixels(net, real.preprocess).eval()
            values = {"clean": right(victim, x)}
            for kind, images in changed.items():
                each = [right(victim, moved) for moved in images]
                values[f"corrupted:{kind}"] = sum(each) / len(each)
            values["corrupted"] = sum(values[f"corrupted:{kind}"] for kind in changed) / len(changed)
            attack_seed = seed_for(seeds[network], "attack")
            with seeded(ctx.device, attack_seed), _numpy_seeded(attack_seed), _current(ctx.device):
                classifier = art.classifier(victim, x, real.num_classes)
                for name, attack in self._attacks(art, classifier).items():
                    moved = art.moved(attack, x, y)
                    values[name] = right(victim, moved.to(x.device))
            yield measurement(network, seeds[network], values)

    def _attacks(self, art: Toolbox, classifier: Any) -> dict[str, Any]:
        evasion, most = art.evasion, self.images
        found = {
            "fgsm": evasion.FastGradientMethod(classifier, eps=self.eps, batch_size=most),
            "robust_accuracy": evasion.ProjectedGradientDescent(
                classifier,
                eps=self.eps,
                eps_step=self.eps / 8,
                max_iter=self.steps,
                num_random_init=1,
                batch_size=most,
                verbose=False,
            ),
        }
        if self.autoattack:
            found["autoattack"] = evasion.AutoAttack(
                classifier, eps=self.eps, eps_step=self.eps / 8, batch_size=most
            )
        return found


class FromPixels(nn.Module):
    """A network that takes pixels in [0, 1]: what an attacker sees."""

    def __init__(self, net: nn.Module, preprocess: Preprocess):
        """Takes the network and what it wants done with pixels."""
        super().__init__()
        self.net, self.preprocess = net, preprocess

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits `(b, k)` of pixels `(b, c, h, w)`."""
        out: Tensor = self.net(self.preprocess(x))
        return out


def corrupted(x: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """Returns pixels `(n, c, h, w)` in [0, 1] corrupted at `severity` 0 to 4; the same at the same seed."""
    name, knobs = CORRUPTIONS[kind]
    augmentation: Callable[..., nn.Module] = getattr(import_module("kornia.augmentation"), name)
    with seeded(x.device, seed):
        out: Tensor = augmentation(**knobs[severity], p=1.0)(x)
    return out.clamp(0, 1)


@dataclass(frozen=True)
class Toolbox:
    """What is used of the adversarial-robustness-toolbox."""

    estimators: Any
    evasion: Any

    def classifier(self, victim: nn.Module, x: Tensor, num_classes: int) -> Any:
        """Returns the toolbox's view of a network that takes images like `x (n, c, h, w)`."""
        kind = "cpu" if x.device.type == "cpu" else "gpu"
        return self.estimators.PyTorchClassifier(
            victim,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            num_classes,
            clip_values=(0.0, 1.0),
            device_type=kind,
        )

    @staticmethod
    def moved(attack: Any, x: Tensor, y: Tensor) -> Tensor:
        """Returns what an attack makes of the images."""
        found: np.ndarray[Any, Any] = attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy())
        return torch.from_numpy(found)


def toolbox() -> Toolbox:
    """Returns the toolbox.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return Toolbox(import_module("art.estimators.classification"), import_module("art.attacks.evasion"))
    except ImportError as error:
        raise ImportError(
            "evaluator robustness needs the adversarial-robustness-toolbox. Use: pip install 'dd-bench[robustness]'"
        ) from error


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: the toolbox asks for no other."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, which the toolbox draws starts from, and puts it back."""
    state = np.random.get_state()  # noqa: NPY002  not ours to choose
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
