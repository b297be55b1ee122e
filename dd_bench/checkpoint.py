"""Saves and restores what an outer loop carries: tensors, optimisers, schedulers. No pickle, never half a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dd_bench.record import write_atomic


class Stateful(Protocol):
    """An optimiser, scheduler or module."""

    def state_dict(self) -> dict[str, Any]:
        """Returns nested dicts and lists of tensors and plain values."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Takes back what `state_dict` gave."""


State = Mapping[str, Tensor | Stateful]


def save(path: Path, step: int, seconds: float, state: State) -> None:
    """Writes `state` after `step` steps and `seconds` of work to one safetensors file, atomically.

    Raises:
        OSError: the disk is full or not writable; the previous checkpoint is untouched.
    """
    tensors: dict[str, Tensor] = {}
    plain = {
        name: _flatten(name, part.detach() if isinstance(part, Tensor) else part.state_dict(), tensors)
        for name, part in state.items()
    }
    header = {"step": str(step), "seconds": str(seconds), "plain": json.dumps(plain)}
    write_atomic(path, to_safetensors(tensors, metadata=header))


def restore(path: Path, state: State) -> tuple[int, float]:
    """Fills `state` in place from a checkpoint; returns the steps and seconds done, zeros if there is none.

    Raises:
        RuntimeError: the file is damaged or belongs to other state.
    """
    if not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        raise RuntimeError(f"checkpoint {path} is damaged ({error}). To start anew: rm {path}") from error
    plain = json.loads(header["plain"])
    if set(plain) != set(state):
        raise RuntimeError(f"checkpoint {path} holds {sorted(plain)}, the method carries {sorted(state)}. rm {path}")
    for name, part in state.items():
        value = _unflatten(plain[name], tensors)
        if isinstance(part, Tensor):
            with torch.no_grad():
                part.copy_(value)
        else:
            part.load_state_dict(value)
    return int(header["step"]), float(header["seconds"])


def _flatten(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Moves tensors out of a nested value into `tensors`; what is left is JSON."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):  # as pairs: JSON would turn the integer keys of an optimiser into text
        return {"pairs": [[key, _flatten(f"{name}.{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(f"{name}.{i}", item, tensors) for i, item in enumerate(value)]
    return value


def _unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _unflatten(item, tensors) for key, item in value["pairs"]}
    return value
