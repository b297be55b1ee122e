"""Every seed of the project comes from here: a hash of what the randomness is for.

A stream is named, not counted: `seed_for(base, "augment", step)`. So the randomness of step *t* depends on the
base seed, its role and *t* alone; not on what ran before, on the clock, or on whether the run was resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def seed_for(base: int, *name: str | int) -> int:
    """Returns the seed in [0, 2**63) of the stream called `name` under the seed `base`.

    >>> seed_for(0, "augment", 3) == seed_for(0, "augment", 3) != seed_for(0, "augment", 4)
    True
    """
    text = "\x1f".join(str(part) for part in (base, *name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, base: int, *name: str | int) -> torch.Generator:
    """Returns a generator on `device`, seeded for the stream `name`.

    CPU and CUDA generators give different numbers for one seed: results repeat on one kind of device.
    """
    return torch.Generator(device=device).manual_seed(seed_for(base, *name))


def published_order(n: int, seed: int) -> torch.Tensor:
    """Returns what `torch.manual_seed(seed)` and a shuffle of `n` give: the order of splits that others published."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Stream:
    """One stream of random numbers on two sides: `host` for choices that steer Python, `device` for tensors.

    A choice drawn on a GPU would have to be waited for. On the CPU both are the same generator.
    """

    host: torch.Generator
    device: torch.Generator


def stream(device: torch.device | str, base: int, *name: str | int) -> Stream:
    """Returns the stream `name` under the seed `base`."""
    host = generator("cpu", base, *name)
    on_host = torch.device(device).type == "cpu"
    return Stream(host, host if on_host else generator(device, base, *name))


class Generators:
    """The state of random streams, and of the global generators, for a checkpoint."""

    def __init__(self, streams: Sequence[Stream], device: torch.device):
        """Takes the streams that a training draws from."""
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
    """Seeds the global generators (CPU and `device`) inside the block, and restores them after it.

    For code that takes no generator: the initialisers of `torch.nn`, and dropout.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if device.type == "cpu":  # torch.manual_seed also formats the stack, once a kind of device
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield
