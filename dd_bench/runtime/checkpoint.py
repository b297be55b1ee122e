"""Save and restore the state of a loop: tensors, optimisers, schedulers. Files are atomic and contain no pickle."""

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
from dd_bench.runtime.transfer import to_host


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or does not match the state that it is loaded into."""


class Stateful(Protocol):
    """An object with a state to save, such as an optimiser, scheduler or module."""

    def state_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of tensors and JSON values."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Load a result of `state_dict`."""


State = Mapping[str, Tensor | Stateful]


def tensors_in(state: State) -> dict[str, Tensor]:
    """Return a dict that maps the dotted path of each tensor in `state` to the tensor."""
    return _flatten_state(state)[1]


def save(path: Path, step: int, seconds: float, state: State) -> None:
    """Write `state`, reached after `step` steps and `seconds` of work, atomically to one safetensors file.

    The device is waited for once.

    Raises:
        OSError: the disk is full or not writable. The previous checkpoint is unchanged.
    """
    plain, tensors = _flatten_state(state)
    # copies, because safetensors refuses tensors that share memory, such as tied weights
    stored = dict(zip(tensors, to_host([*tensors.values()]), strict=True))
    header = {"step": str(step), "seconds": str(seconds), "plain": json.dumps(plain)}
    write_atomic(path, to_safetensors(stored, metadata=header))


def saved_progress(path: Path) -> tuple[int, float]:
    """Return the steps and seconds of a checkpoint, or zeros if it is missing or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        return int(header["step"]), float(header["seconds"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        return 0, 0.0


def remove(folder: Path) -> None:
    """Remove the checkpoints in a folder, including temporary files of killed runs."""
    for path in folder.glob("*.checkpoint.safetensors"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.checkpoint.safetensors.*"):
        path.unlink(missing_ok=True)


def restore(path: Path, state: State) -> tuple[int, float]:
    """Load a checkpoint into `state` in place. Return its steps and seconds, or zeros if there is no checkpoint.

    Raises:
        CheckpointError: the file is damaged or does not match `state`.
    """
    if not path.exists():
        return 0, 0.0
    hint = f"To start from scratch: rm {path}"
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        step, seconds, plain = int(header["step"]), float(header["seconds"]), json.loads(header["plain"])
        values = {name: _unflatten(value, tensors) for name, value in plain.items()}
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}). {hint}") from error
    if set(values) != set(state):
        raise CheckpointError(f"checkpoint {path} must contain {sorted(state)}, got {sorted(values)}. {hint}")
    for name, part in state.items():
        try:
            _load(part, values[name])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{name!r} in checkpoint {path} does not match the current state: {error}. {hint}"
            ) from error
    return step, seconds


def _load(part: Tensor | Stateful, value: Any) -> None:
    if not isinstance(part, Tensor):
        part.load_state_dict(value)
        return
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (part.shape, part.dtype):
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else "no tensor"
        raise ValueError(f"expected {part.dtype} {tuple(part.shape)}, got {got}")
    with torch.no_grad():
        part.copy_(value)


def _flatten_state(state: State) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    plain = {
        name: _flatten(name, part if isinstance(part, Tensor) else part.state_dict(), tensors)
        for name, part in state.items()
    }
    return plain, tensors


def _flatten(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested value into `tensors` and return the rest as JSON."""
    if isinstance(value, Tensor):
        assert name not in tensors, f"two tensors have the name {name!r}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):  # pairs, because JSON would convert an optimiser's integer keys to strings
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
