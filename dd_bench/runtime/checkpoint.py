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

from dd_bench.runtime.files import write_atomic


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or of something else."""


class Stateful(Protocol):
    """An optimiser, scheduler or module."""

    def state_dict(self) -> dict[str, Any]:
        """Returns nested dicts and lists of tensors and plain values."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Takes back what `state_dict` gave."""


State = Mapping[str, Tensor | Stateful]


def tensors_in(state: State) -> dict[str, Tensor]:
    """Returns every tensor that `state` carries, by its path in it."""
    return _flattened(state)[1]


def save(path: Path, step: int, seconds: float, state: State) -> None:
    """Writes `state` after `step` steps and `seconds` of work to one safetensors file, atomically.

    Raises:
        OSError: the disk is full or not writable; the previous checkpoint is untouched.
    """
    plain, tensors = _flattened(state)
    # a copy each: safetensors refuses tensors that share memory, and tied weights do
    stored = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()
    }
    header = {"step": str(step), "seconds": str(seconds), "plain": json.dumps(plain)}
    write_atomic(path, to_safetensors(stored, metadata=header))


def saved_progress(path: Path) -> tuple[int, float]:
    """Returns the steps and seconds that a checkpoint holds; zeros if there is none or it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        return int(header["step"]), float(header["seconds"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        return 0, 0.0


def remove(folder: Path) -> None:
    """Removes the checkpoints in a folder, and what a killed run left of one."""
    for path in folder.glob("*.checkpoint.safetensors"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.checkpoint.safetensors.*"):
        path.unlink(missing_ok=True)


def restore(path: Path, state: State) -> tuple[int, float]:
    """Fills `state` in place from a checkpoint; returns the steps and seconds done, zeros if there is none.

    Raises:
        CheckpointError: the file is damaged or belongs to other state.
    """
    if not path.exists():
        return 0, 0.0
    anew = f"To start anew: rm {path}"
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        step, seconds, plain = int(header["step"]), float(header["seconds"]), json.loads(header["plain"])
        values = {name: _unflatten(value, tensors) for name, value in plain.items()}
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}). {anew}") from error
    if set(values) != set(state):
        raise CheckpointError(
            f"checkpoint {path} holds {sorted(values)}, the method carries {sorted(state)}. {anew}"
        )
    for name, part in state.items():
        try:
            _fill(part, values[name])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{name!r} of checkpoint {path} is not the method's: {error}. {anew}"
            ) from error
    return step, seconds


def _fill(part: Tensor | Stateful, value: Any) -> None:
    if not isinstance(part, Tensor):
        part.load_state_dict(value)
        return
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (part.shape, part.dtype):
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else "no tensor"
        raise ValueError(f"wanted {part.dtype} {tuple(part.shape)}, it holds {got}")
    with torch.no_grad():
        part.copy_(value)


def _flattened(state: State) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    plain = {
        name: _flatten(name, part if isinstance(part, Tensor) else part.state_dict(), tensors)
        for name, part in state.items()
    }
    return plain, tensors


def _flatten(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Moves tensors out of a nested value into `tensors`; what is left is JSON."""
    if isinstance(value, Tensor):
        assert name not in tensors, f"two tensors are called {name!r}"
        tensors[name] = value
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
