"""A network architecture for the input shape and the classes of a dataset. A seed determines each instance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dd_bench.data.graphs import GraphShape
from dd_bench.data.nodes import NodeShape
from dd_bench.models.determinism import nondeterministic_operations
from dd_bench.models.network import Network
from dd_bench.records.identity import plugin_source
from dd_bench.runtime.seeding import seeded
from dd_bench.runtime.transfer import move_module


@dataclass(frozen=True)
class Architecture:
    """A network constructor with its hyper-parameters, e.g. ConvNet(width=128), for inputs of one shape.

    Attributes:
        make: `make(image_shape, num_classes, **knobs) -> Network`; picklable, so that it can be sent to processes.
        knobs: hyper-parameters, the keys of `conf/model/*.yaml`.
        shape: (c, h, w), or a `GraphShape` or `NodeShape`.
        num_classes: k.
        name: name of the YAML file in `conf/model/`. Together with `knobs`, it identifies the network.
    """

    make: Callable[..., Network]
    knobs: dict[str, Any]
    shape: tuple[int, int, int]  # a GraphShape or NodeShape for networks on graphs
    num_classes: int
    name: str

    def fresh(self, seed: int, device: torch.device) -> Network:
        """Return a randomly initialised network in train mode on `device`, determined by `seed`.

        It is initialised on the CPU and then moved, so a seed gives the same network on every device. The call does not
        wait for the device.
        """
        with seeded("cpu", seed):
            net = self.make(self.shape, self.num_classes, **self.knobs)
        move_module(net, device)
        return net.train()

    def check_shape(self, device: torch.device | None = None) -> str | None:
        """Return why the network cannot process inputs of this shape, or cannot be trained on `device`; else None.

        Raises:
            ValueError: a hyper-parameter has a value of the wrong type.
        """
        expected = getattr(self.make, "modality", "image")
        actual = modality(self.shape)
        if actual != expected:
            alternative = {"graph": "model=gin", "node": "model=node_gcn"}.get(actual, "model=convnet")
            return f"{self.title} requires {expected}s, but the dataset contains {actual}s. Use {alternative}"
        try:
            self.fresh(0, torch.device("cpu"))
        except ValueError as error:
            return str(error)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{self.title} cannot be built with {self.knobs}: {error}") from error
        return None if device is None else self.check_determinism(device)

    def check_determinism(self, device: torch.device) -> str | None:
        """If deterministic algorithms are requested, return why the network cannot use them on `device`, else None.

        Graph networks can always use them: their only critical operations are sums over nodes and edges.
        """
        requested = torch.are_deterministic_algorithms_enabled() and device.type == "cuda"
        if not requested or modality(self.shape) != "image":
            return None
        operations = nondeterministic_operations(self.fresh(0, torch.device("cpu")), self.shape)
        if not operations:
            return None
        return (
            f"{self.title} uses {', '.join(operations)}, whose gradient has no deterministic implementation on CUDA. "
            "Use runtime.deterministic=false, or another network, e.g. model=convnet"
        )

    def override(self, **knobs: Any) -> Architecture:
        """Return the architecture with some hyper-parameters replaced. A hyper-parameter that is None is not replaced.

        Raises:
            ValueError: the network has no such hyper-parameter.
        """
        changes = {k: v for k, v in knobs.items() if v is not None}
        for knob in changes:
            if knob not in self.knobs:
                raise ValueError(f"{self.title} has no hyper-parameter {knob!r}. It has {sorted(self.knobs)}")
        return Architecture(self.make, {**self.knobs, **changes}, self.shape, self.num_classes, self.name)

    @property
    def title(self) -> str:
        """The name of the constructor, e.g. `ConvNet`."""
        return getattr(self.make, "__name__", self.name)

    def describe(self) -> dict[str, Any]:
        """Return the fields that identify the network in a cache key. A file is identified by its content.

        Raises:
            OSError: a file of weights cannot be read.
        """
        later, files = getattr(self.make, "later_knobs", {}), getattr(self.make, "file_knobs", ())
        knobs = {k: file_digest(v) if k in files and v is not None else v for k, v in self.knobs.items()}
        return {
            "network": self.name,
            **plugin_source(self.make),
            **{k: v for k, v in knobs.items() if k not in later or v != later[k]},
            "shape": list(self.shape),
            "num_classes": self.num_classes,
        }


def file_digest(path: str) -> str:
    """Return the SHA-256 of a file. A file that was not modified in the meantime is read once per process."""
    status = Path(path).stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _file_digest(path: str, size: int, modified: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def modality(shape: tuple[int, ...] | GraphShape | NodeShape) -> str:
    """Return `image`, `graph` or `node`: the kind of inputs that have this shape."""
    if isinstance(shape, GraphShape):
        return "graph"
    return "node" if isinstance(shape, NodeShape) else "image"
