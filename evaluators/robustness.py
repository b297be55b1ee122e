"""Accuracy of fresh networks on clean, adversarial and corrupted test images."""

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
    eval_batch_size,
    seed_for,
    seeded,
)

from ._scoring import check_at_least, fresh_networks_on, measurement, set_measurement
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
"""kornia's augmentation of each corruption and its parameters at five severities.

If CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019) has the corruption, its values are used. They are recalled and were
not checked against its source. Contrast multiplies the pixels, brightness shifts them.
"""


class Robustness(Accuracy):
    """Accuracies on `images` test images. The test images are the same for every set and network.

    - `clean`: accuracy on the unchanged images.
    - `fgsm`, `robust_accuracy` (PGD with `steps` steps of eps / 8 from a random start) and optionally `autoattack`
      (APGD with two losses, DeepFool and Square, see `Toolbox.ensemble`): accuracy under attacks that change each pixel
      by at most `eps`, for pixels in [0, 1]. All but Square are white-box attacks.
    - `corrupted:KIND`: mean accuracy over five severities. `corrupted` is the mean over all kinds.

    The attacks are those of the adversarial-robustness-toolbox, the corruptions those of kornia. Networks are attacked
    in float32, without augmentation. The toolbox computes with NumPy arrays, so each step of an attack waits for the
    device.
    """

    main_metric = "robust_accuracy"
    smoke = ("evaluator.num_networks=2", "evaluator.images=9", "evaluator.steps=2")

    def __init__(self, *, num_networks: int, images: int, eps: float, steps: int, autoattack: bool):
        """See `conf/evaluator/robustness.yaml` for the arguments.

        Raises:
            ValueError: A value is out of range.
        """
        super().__init__(num_networks=num_networks)
        check_at_least(1, images=images, steps=steps)
        if not 0 < eps < 1:
            raise ValueError(
                f"evaluator.eps must be in (0, 1), got {eps}. Example for 8/255: evaluator.eps=0.03137"
            )
        self.images, self.eps, self.steps, self.autoattack = images, eps, steps, autoattack

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. Networks must not be selected on the images that they are attacked with."""
        if protocol.selection == "best_on_test":
            return (
                f"protocol {protocol.name} selects networks on test data, which evaluator robustness does not support. "
                "Use a protocol with selection=last"
            )
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`.

        Raises:
            ImportError: The toolbox is not installed.
        """
        toolbox()
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, art = fresh_networks_on(syn, real, ctx), toolbox()
        yield set_measurement(fresh)
        rng = torch.Generator().manual_seed(seed_for(ctx.seed, "attacked"))
        index = torch.randperm(len(real.test), generator=rng)[: self.images].sort().values.to(ctx.device)
        x, y = real.test.pixels(index).float() / 255, real.test.labels[index]
        corrupted_images = {
            kind: [corrupt(x, kind, severity, seed_for(ctx.seed, kind, severity)) for severity in range(5)]
            for kind in CORRUPTIONS
        }
        seeds, exact = self.seeds(ctx), ctx.runtime.in_float32()

        def accuracy_on(net: nn.Module, pixels: Tensor) -> float:
            size = eval_batch_size(net, real.shape)
            return accuracy(net, zip(pixels.split(size), y.split(size), strict=True), exact)

        for network, net in fresh.networks(seeds, self.num_networks):
            victim = FromPixels(net, real.preprocess).eval()
            values = {"clean": accuracy_on(victim, x)}
            for kind, severities in corrupted_images.items():
                each = [accuracy_on(victim, images) for images in severities]
                values[f"corrupted:{kind}"] = sum(each) / len(each)
            values["corrupted"] = sum(values[f"corrupted:{kind}"] for kind in CORRUPTIONS) / len(CORRUPTIONS)
            attack_seed = seed_for(seeds[network], "attack")
            with seeded(ctx.device, attack_seed), _numpy_seeded(attack_seed), _current_device(ctx.device):
                classifier = art.classifier(victim, x, real.num_classes)
                for name, attack in self._attacks(art, classifier).items():
                    adversarial = art.adversarial(attack, x, y)
                    values[name] = accuracy_on(victim, adversarial.to(x.device))
            yield measurement(network, seeds[network], values)

    def _attacks(self, art: Toolbox, classifier: Any) -> dict[str, Any]:
        evasion = art.evasion
        attacks = {
            "fgsm": evasion.FastGradientMethod(classifier, eps=self.eps, batch_size=self.images),
            "robust_accuracy": evasion.ProjectedGradientDescent(
                classifier,
                eps=self.eps,
                eps_step=self.eps / 8,
                max_iter=self.steps,
                num_random_init=1,
                batch_size=self.images,
                verbose=False,
            ),
        }
        if self.autoattack:
            attacks["autoattack"] = evasion.AutoAttack(
                classifier,
                eps=self.eps,
                eps_step=self.eps / 8,
                batch_size=self.images,
                attacks=art.ensemble(classifier, self.eps, self.images),
            )
        return attacks


class FromPixels(nn.Module):
    """A network including its preprocessing, which takes pixels in [0, 1]."""

    def __init__(self, net: nn.Module, preprocess: Preprocess):
        """Take the network and its preprocessing."""
        super().__init__()
        self.net, self.preprocess = net, preprocess

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(b, k)` of pixels `(b, c, h, w)`."""
        out: Tensor = self.net(self.preprocess(x))
        return out


def corrupt(x: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """Corrupt pixels `(n, c, h, w)` in [0, 1] with `severity` 0 to 4. All random numbers are drawn from `seed`."""
    name, parameters = CORRUPTIONS[kind]
    augmentation: Callable[..., nn.Module] = getattr(import_module("kornia.augmentation"), name)
    with seeded(x.device, seed):
        out: Tensor = augmentation(**parameters[severity], p=1.0)(x)
    return out.clamp(0, 1)


@dataclass(frozen=True)
class Toolbox:
    """The modules of the adversarial-robustness-toolbox that are used here."""

    estimators: Any
    evasion: Any

    def classifier(self, victim: nn.Module, x: Tensor, num_classes: int) -> Any:
        """Return the toolbox's wrapper of a network that takes images with the shape of `x (n, c, h, w)`."""
        kind = "cpu" if x.device.type == "cpu" else "gpu"
        return self.estimators.PyTorchClassifier(
            victim,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            num_classes,
            clip_values=(0.0, 1.0),
            device_type=kind,
        )

    def ensemble(self, classifier: Any, eps: float, batch_size: int) -> list[Any]:
        """Return the attacks of AutoAttack: those of the toolbox, each from one random start.

        The toolbox takes five, which needs five times as long. The standard version of Croce and Hein (ICML 2020) takes
        one; it has targeted APGD and FAB in place of the second loss and DeepFool.
        """
        evasion = self.evasion
        apgd = [
            evasion.AutoProjectedGradientDescent(
                classifier,
                eps=eps,
                eps_step=eps / 8,
                max_iter=100,
                nb_random_init=1,
                batch_size=batch_size,
                loss_type=loss,
                verbose=False,
            )
            for loss in ("cross_entropy", "difference_logits_ratio")
        ]
        deep_fool = evasion.DeepFool(
            classifier, max_iter=100, epsilon=1e-3, batch_size=batch_size, verbose=False
        )
        square = evasion.SquareAttack(
            classifier, eps=eps, max_iter=5000, nb_restarts=1, batch_size=batch_size, verbose=False
        )
        return [*apgd, deep_fool, square]

    @staticmethod
    def adversarial(attack: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the adversarial examples that an attack computes for images `x` and labels `y`, on the CPU."""
        examples: np.ndarray[Any, Any] = attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy())
        return torch.from_numpy(examples)


def toolbox() -> Toolbox:
    """Import the toolbox.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return Toolbox(import_module("art.estimators.classification"), import_module("art.attacks.evasion"))
    except ImportError as error:
        raise ImportError(
            "evaluator robustness requires the adversarial-robustness-toolbox. Use: pip install 'dd-bench[robustness]'"
        ) from error


def _current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make `device` the current device if it is a GPU, because the toolbox uses only the current GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which the toolbox draws random starts, and restore its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002  the toolbox uses the global generator
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
