"""Wrap any `torch.nn.Module` class as a `Network`: fill in constructor arguments and find the last linear layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dd_bench.models.network import Network

FILLED = {
    "num_classes": ("num_classes", "n_classes", "nb_classes", "num_labels"),
    "channels": ("in_channels", "in_chans", "input_channels", "num_channels", "n_channels", "channels"),
    "size": ("image_size", "img_size", "input_size"),
    "shape": ("image_shape", "input_shape"),
}
"""Names of constructor parameters for the number of classes, and for the channels, side or shape of the images."""


def network_constructor(make: Callable[..., Any]) -> Callable[..., Network]:
    """Return `make` if it builds a `Network` from `(image_shape, num_classes, **knobs)`, else wrap it."""
    if inspect.isclass(make) and issubclass(make, Network):
        return make
    constructor: Any = make
    first = next(iter(inspect.signature(constructor).parameters), None)
    return constructor if first == "image_shape" else ModuleConstructor(constructor)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ModuleConstructor:
    """Build a `ModuleNetwork` from a class, or a function that returns a module.

    Attributes:
        __wrapped__: the class. `inspect.unwrap` returns it, so the network is identified by the source of the class.
    """

    __wrapped__: Callable[..., nn.Module]

    @property
    def __name__(self) -> str:
        return getattr(self.__wrapped__, "__name__", type(self.__wrapped__).__name__)

    def __call__(
        self, image_shape: tuple[int, int, int], num_classes: int, **arguments: Any
    ) -> ModuleNetwork:
        """Build the network for images `(c, h, w)` and check it with two blank images.

        Parameters of the constructor whose name is in `FILLED` are filled in, unless `arguments` has them.

        Raises:
            ValueError: a parameter has no value, or the module does not map `(n, c, h, w)` to logits `(n, k)`.
        """
        name = self.__name__
        parameters = inspect.signature(self.__wrapped__).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        _, height, width = image_shape
        known = {
            "num_classes": num_classes,
            "channels": image_shape[0],
            "size": height if height == width else (height, width),
            "shape": image_shape,
        }
        values = {n: known[what] for what, names in FILLED.items() for n in names if n in parameters}
        if open_ended:  # torchvision.models.resnet18(**kwargs)
            values.setdefault("num_classes", num_classes)
        values |= arguments
        named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if missing := [n for n, p in named.items() if p.default is p.empty and n not in values]:
            raise ValueError(
                f"{name} needs a value for {', '.join(missing)}. Use functools.partial({name}, {missing[0]}=...), "
                f"or the key model.{missing[0]}"
            )
        if not open_ended and (unknown := sorted(set(values) - set(named))):
            raise ValueError(
                f"{name} has no parameter {unknown[0]!r}. Its parameters are {', '.join(sorted(named))}"
            )
        return ModuleNetwork(self.__wrapped__(**values), image_shape, num_classes, name)


class ModuleNetwork(Network):
    """A module that maps images `(n, c, h, w)` to logits `(n, k)`.

    Activation maps are the 4-d outputs of activation modules such as `nn.ReLU`, in the order of execution; functional
    calls (`F.relu`) give none. The embedding is the input of the last linear layer.
    """

    def __init__(self, module: nn.Module, image_shape: tuple[int, int, int], num_classes: int, name: str):
        """See `ModuleConstructor`."""
        super().__init__()
        self.module, self._name = module, name
        executed: list[tuple[str, Tensor]] = []
        module.eval()
        with torch.no_grad():
            self._blank(image_shape, num_classes)  # also initialises lazy modules
            hooks = [
                layer.register_forward_hook(lambda _m, _x, out, path=path: executed.append((path, out)))
                for path, layer in module.named_modules()
                if isinstance(layer, nn.Linear)
            ]
            logits = self._blank(image_shape, num_classes)
        for hook in hooks:
            hook.remove()
        module.train()
        is_last = bool(executed) and executed[-1][1].shape == logits.shape and executed[-1][1].equal(logits)
        self._classifier_path = executed[-1][0] if is_last else None

    def _blank(self, image_shape: tuple[int, int, int], num_classes: int) -> Tensor:
        shape = "x".join(map(str, image_shape))
        try:
            logits = self.module(torch.zeros(2, *image_shape))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"{self._name} must accept images of {shape}, but it raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
            actual = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"{self._name} must return logits (2, {num_classes}) for 2 images of {shape}, got {actual}. "
                "Its constructor must accept num_classes and use it as the number of logits"
            )
        return logits

    @property
    def classifier(self) -> nn.Linear:  # type: ignore[override]
        """The last linear layer. Its output is the logits.

        Raises:
            ValueError: the module does not end in a linear layer.
        """
        if self._classifier_path is None:
            raise ValueError(
                f"this method or evaluator needs the input of the last linear layer, but the output of {self._name} "
                "is not computed by an nn.Linear. Use another network, e.g. model=convnet"
            )
        layer: Any = self.module.get_submodule(self._classifier_path)
        return layer  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """See `Network`."""
        logits: Tensor = self.module(x)
        return logits

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`."""
        maps: list[Tensor] = []
        inputs: list[Tensor] = []
        hooks = [self.classifier.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))]
        hooks += [
            layer.register_forward_hook(lambda _m, _x, out: maps.append(out))
            for layer in self.module.modules()
            if type(layer).__module__ == "torch.nn.modules.activation"
        ]
        try:
            self.module(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [m for m in maps if isinstance(m, Tensor) and m.ndim == 4], inputs[-1]
