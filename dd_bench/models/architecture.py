"""Which network, bound to a dataset's shape and classes: fresh instances of it come from a seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dd_bench.data.graphs import GraphShape
from dd_bench.models.network import Network
from dd_bench.records.identity import plugin_source
from dd_bench.runtime.seeding import seeded


@dataclass(frozen=True)
class Architecture:
    """A network constructor with its knobs, e.g. ConvNet(width=128), for images of one shape.

    Attributes:
        make: `make(image_shape, num_classes, **knobs) -> Network`; picklable, so that processes can share it.
        knobs: the keys of `conf/model/*.yaml`.
        shape: (c, h, w), or a `GraphShape`.
        num_classes: k.
        name: of its YAML in `conf/model/`; with the knobs it identifies the network.
    """

    make: Callable[..., Network]
    knobs: dict[str, Any]
    shape: tuple[int, int, int]  # of graphs a GraphShape; a constructor knows which it takes
    num_classes: int
    name: str

    def fresh(self, seed: int, device: torch.device) -> Network:
        """Return a randomly initialised network in train mode on `device`, a function of `seed`.

        Initialised on the CPU and moved: one seed is one network on every device.
        """
        with seeded("cpu", seed):
            net = self.make(self.shape, self.num_classes, **self.knobs)
        return net.to(device).train()

    def check_shape(self) -> str | None:
        """Return why the network cannot take images of this shape, or graphs, or None.

        Raises:
            ValueError: a knob has a value of the wrong kind.
        """
        takes = getattr(self.make, "modality", "image")
        given = "graph" if isinstance(self.shape, GraphShape) else "image"
        if takes != given:
            instead = "model=gin" if given == "graph" else "model=convnet"
            return f"{self.title} takes {takes}s, the dataset holds {given}s. Use {instead}"
        try:
            self.fresh(0, torch.device("cpu"))
        except ValueError as error:
            return str(error)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{self.title} cannot be built with {self.knobs}: {error}") from error
        return None

    def override(self, **knobs: Any) -> Architecture:
        """Return the architecture with some knobs replaced; a None value leaves its knob as it is.

        Raises:
            ValueError: the network has no such knob.
        """
        wanted = {k: v for k, v in knobs.items() if v is not None}
        for knob in wanted:
            if knob not in self.knobs:
                raise ValueError(f"{self.title} has no knob {knob!r}; it has {sorted(self.knobs)}")
        return Architecture(self.make, {**self.knobs, **wanted}, self.shape, self.num_classes, self.name)

    @property
    def title(self) -> str:
        """The constructor's name, e.g. `ConvNet`."""
        return getattr(self.make, "__name__", self.name)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the network in a cache key."""
        return {
            "network": self.name,
            **plugin_source(self.make),
            **self.knobs,
            "shape": list(self.shape),
            "num_classes": self.num_classes,
        }
