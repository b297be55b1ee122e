"""All seeds of the project. A seed is the hash of a base seed and the name of a random stream.

For example, `seed_for(base, "augment", step)` depends only on the base seed, the name and the step. It does not depend
on earlier random numbers, on time, or on whether the run was resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def seed_for(base: int, *name: str | int) -> int:
    """Return the seed in [0, 2**63) of the stream `name` for the base seed `base`.

    >>> seed_for(0, "augment", 3) == seed_for(0, "augment", 3) != seed_for(0, "augment", 4)
    True
    """
    text = "\x1f".join(str(part) for part in (base, *name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, base: int, *name: str | int) -> torch.Generator:
    """Return a generator on `device`, seeded for the stream `name`.

    CPU and CUDA generators give different numbers for the same seed, so results are reproducible per device type.
    """
    return torch.Generator(device=device).manual_seed(seed_for(base, *name))


def published_order(n: int, seed: int) -> torch.Tensor:
    """Return the permutation of 0..n-1 that `torch.manual_seed(seed)` and `torch.randperm(n)` give.

    Published splits of graph datasets are defined by this order.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Stream:
    """A random stream with two generators: `host` for decisions in Python, `device` for tensors.

    Python would have to wait for a decision that is drawn on a GPU. On the CPU, both are the same generator.
    """

    host: torch.Generator
    device: torch.Generator


def stream(device: torch.device | str, base: int, *name: str | int) -> Stream:
    """Return the stream `name` for the base seed `base`."""
    host = generator("cpu", base, *name)
    on_host = torch.device(device).type == "cpu"
    return Stream(host, host if on_host else generator(device, base, *name))


class Generators:
    """The state of random streams and of torch's global generators, for checkpoints."""

    def __init__(self, streams: Sequence[Stream], device: torch.device):
        """Create the state of `streams` and of the global generators of the CPU and of `device`."""
        self._generators = {
            f"{i}.{side}": generator
            for i, stream in enumerate(streams)
            for side, generator in (("host", stream.host), ("device", stream.device))
        }
        self._device = device

    def state_dict(self) -> dict[str, torch.Tensor]:
        """See `checkpoint.Stateful`."""
        state = {name: generator.get_state() for name, generator in self._generators.items()}
        state["global"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `checkpoint.Stateful`."""
        for name, generator in self._generators.items():
            generator.set_state(state[name])
        torch.set_rng_state(state["global"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self._device)


@contextmanager
def seeded(device: torch.device | str, seed: int) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device` inside the context, and restore them afterwards.

    This is for code that accepts no generator, such as the initialisers of `torch.nn` and dropout. Only the
    generators that are restored are seeded. `torch.manual_seed` would also seed those of all other devices.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
