"""Memory on a device for the inputs of steps, which are copied to it by one transfer without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from dd_bench.runtime.transfer import pack, page_locked, unpack

Tree = TypeVar("Tree")


class FixedMemory:
    """Memory on a device for the tensors in nested dataclasses and dicts. Their other values are constants.

    Attributes:
        tree: a copy of the example, in which each tensor is a view of the memory.
    """

    tree: Any

    def __init__(self, example: Any, device: torch.device):
        """Allocate memory for the tensors of `example`, in their shapes and types."""
        tensors = list(tensors_in(example))
        packed, offsets = pack(tensors)
        self._memory = torch.empty_like(packed, device=device)
        parts = iter(unpack(self._memory, offsets, tensors))
        self.tree = map_tensors(lambda _: next(parts), example)
        self._constants = list(constants_in(example))

    def fill(self, tree: Any) -> None:
        """Copy the CPU tensors of a tree like the example into the memory by one transfer, without waiting for it.

        Raises:
            ValueError: a value that is not a tensor differs from the example, e.g. a number. `tree` would keep the old
                value.
        """
        if (constants := list(constants_in(tree))) != self._constants:
            raise ValueError(
                "values in fixed memory that are not tensors must not change: expected "
                f"{_difference(self._constants, constants)}. Store a value that changes as a tensor"
            )
        packed, _ = pack(list(tensors_in(tree)))
        # PyTorch does not use page-locked memory again before the transfer has finished
        self._memory.copy_(page_locked(packed, self._memory.device), non_blocking=True)


def send(tree: Tree, device: torch.device) -> Tree:
    """Copy the CPU tensors in nested dataclasses and dicts to `device` by one transfer, without waiting for it."""
    if device.type == "cpu" or next(tensors_in(tree), None) is None:
        return tree
    memory = FixedMemory(tree, device)
    memory.fill(tree)
    sent: Tree = memory.tree
    return sent


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply a function to the tensors in nested dataclasses and dicts; keep other values."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: map_tensors(function, getattr(tree, f.name)) for f in fields(tree)})
    return tree


def constants_in(tree: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and value of everything in nested dataclasses and dicts that is not a tensor.

    The value of a dataclass or dict itself is its type.
    """
    if isinstance(tree, Tensor):
        return
    if isinstance(tree, dict):
        children: Iterable[tuple[Any, Any]] = tree.items()
    elif is_dataclass(tree) and not isinstance(tree, type):
        children = ((f.name, getattr(tree, f.name)) for f in fields(tree))
    else:
        yield name, tree
        return
    yield name, type(tree)
    for key, value in children:
        yield from constants_in(value, f"{name}.{key}" if name else str(key))


def _difference(old: list[tuple[str, object]], new: list[tuple[str, object]]) -> str:
    """Return the first value that differs as text."""
    for (name, a), (other, b) in zip(old, new, strict=False):
        if (name, a) != (other, b):
            return f"{name}={a!r}, got {other}={b!r}"
    return f"{len(old)} values, got {len(new)}"


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested dataclasses and dicts, in a fixed order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors_in(value)
    elif is_dataclass(tree):
        for f in fields(tree):
            yield from tensors_in(getattr(tree, f.name))
