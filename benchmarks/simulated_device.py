"""A simulated accelerator on the CPU: it checks devices, and counts waits and launches by line of dd_bench.

    with simulated_device() as counts:
        x = torch.ones(3, device=DEVICE)
        x.sum().item()
    counts.waits        # {Wait("aten._local_scalar_dense", "...: x.sum().item()"): 1}
    counts.launches     # 2

A tensor on the device is a wrapper (`DeviceTensor`) that reports the device `lazy:0` and stores its values in a CPU
tensor. A dispatch mode runs each operation on the stored values, so results are the same as on the CPU, and Python code
that depends on values works. Autograd and `torch.func` work above the dispatch mode and are the real ones. The type is
`lazy`, because autograd runs it in the calling thread without a driver, and the rest of torch ignores it.

The rules are those of CUDA. An operation on tensors of two devices is an error (except 0-d CPU tensors and CPU
indices), and a generator must be on the device of its tensor. The host waits for the device in copies (except from
and to pinned memory with `non_blocking`), in `.item()` and `.tolist()`, and in operations whose result has a shape that
depends on values.

Not simulated: kernels, time, memory, streams, CUDA graphs, cuDNN, autocast (all is float32), `torch.compile`, several
devices. A launch is one operation that computes; on a GPU, one operation can launch several kernels.
"""

from __future__ import annotations

import collections
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy")  # without an index, like `cuda`; its tensors report `lazy:0`
_CPU = torch.device("cpu")
_GENERATOR = torch.Generator
_THIS = Path(__file__).resolve()
_ROOT = _THIS.parents[1]
_SOURCES = ("dd_bench", "methods", "evaluators", "benchmarks")

# These launch no kernel.
VIEWS = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "select", "slice",
    "split", "split_with_sizes", "unbind", "detach", "alias", "as_strided", "diagonal", "unfold", "lift_fresh", "lift",
    "_reshape_alias", "chunk", "is_same_size", "view_as_real", "empty", "empty_strided", "empty_like", "new_empty",
    "new_empty_strided", "is_pinned", "crow_indices", "ccol_indices", "col_indices", "row_indices", "values",
    "sparse_compressed_tensor", "_sparse_compressed_tensor_unsafe",
}  # fmt: skip
# These wait on CUDA: the shape of the result depends on values, or the host checks for errors.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "_unique",
    "equal", "is_nonzero", "bincount", "argwhere", "allclose", "multinomial", "histc", "_linalg_eigh", "_linalg_svd",
    "linalg_lu_factor_ex", "_linalg_check_errors", "_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "coalesce",
    "_coalesce",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put", "_index_put_impl_"}
COPIES = {"copy_", "copy", "_to_copy", "lift_fresh", "is_same_size", "set_", "detach"}
# These refuse even 0-d CPU tensors on CUDA.
NO_HOST_SCALARS = {
    "cat", "stack", "mm", "bmm", "addmm", "convolution", "dot", "mv", "gather", "scatter", "index_select", "embedding",
    "nll_loss_forward", "grid_sampler_2d", "scatter_add", "index_add",
}  # fmt: skip


class DeviceMismatch(RuntimeError):
    """An operation has tensors or a generator of two devices."""


class Wait(NamedTuple):
    """The operation that waits, and where: `path: source line` of the innermost frame of dd_bench."""

    operation: str
    place: str


class Counts:
    """Waits and launches since the device was created.

    Attributes:
        waits: number of waits by operation and place.
        lines: line number of each place.
        operations: number of launches by operation.
    """

    def __init__(self) -> None:
        self.waits: collections.Counter[Wait] = collections.Counter()
        self.operations: collections.Counter[str] = collections.Counter()
        self.lines: dict[str, int] = {}

    @property
    def launches(self) -> int:
        """Number of operations that compute on the device."""
        return self.operations.total()

    def wait(self, operation: str) -> None:
        """Count a wait of the operation at the current line of dd_bench."""
        place, line = _place()
        self.lines[place] = line
        self.waits[Wait(operation, place)] += 1

    def snapshot(self) -> Counts:
        """Return a copy."""
        copy = Counts()
        copy.waits, copy.operations, copy.lines = self.waits.copy(), self.operations.copy(), self.lines
        return copy

    def __sub__(self, earlier: Counts) -> Counts:
        """Return what was counted since `earlier`."""
        change = self.snapshot()
        change.waits -= earlier.waits
        change.operations -= earlier.operations
        return change

    def __add__(self, other: Counts) -> Counts:
        total = self.snapshot()
        total.waits += other.waits
        total.operations += other.operations
        return total


def _place() -> tuple[str, int]:
    """Return `path: source line` and the line number of the innermost frame of dd_bench."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != _THIS and path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _SOURCES:
            line = linecache.getline(str(path), frame.f_lineno).strip()
            return f"{path.relative_to(_ROOT)}: {line}", frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "outside dd_bench", 0


class DeviceTensor(torch.Tensor):
    """A tensor that reports the device `lazy:0` and stores its values in the CPU tensor `stored`."""

    stored: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> DeviceTensor:
        """Wrap a CPU tensor, dense or sparse."""
        if values.layout is torch.strided:
            where: dict[str, Any] = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        else:  # a sparse tensor has neither; the mode below is asked for its layout
            where = {"dispatch_layout": True}
        wrapper: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            dtype=values.dtype,
            layout=values.layout,
            device=torch.device(DEVICE.type, 0),
            **where,
        )
        wrapper.stored = values
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a tensor of the simulated device is used outside `simulated_device()`")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.stored!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a tensor on the device cannot be pickled for another process")


class _Operation(NamedTuple):
    """What is known of an operation from its schema."""

    name: str
    launches: bool
    in_place: tuple[int | str, ...] | None  # arguments that the operation writes to and returns
    pins: bool

    @classmethod
    def of(cls, func: Any) -> _Operation:
        schema, name = func._schema, func._schema.name.split("::")[-1]
        written = {
            frozenset(a.alias_info.before_set): a.name if a.kwarg_only else i
            for i, a in enumerate(schema.arguments)
            if a.alias_info is not None and a.alias_info.is_write
        }
        returned = [r.alias_info for r in schema.returns]
        in_place: tuple[int | str, ...] | None = None
        if written and all(r is not None and r.is_write for r in returned):
            in_place = tuple(written[frozenset(r.before_set)] for r in returned)
        return cls(name, name not in VIEWS, in_place, "pin" in name)


class _Device(TorchDispatchMode):
    """Runs each operation on the stored values, and counts it."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts
        self._operations: dict[Any, _Operation] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = self._operations.get(func)
        if operation is None:
            operation = self._operations[func] = _Operation.of(func)
        leaves = tree_leaves((args, kwargs))
        on = [x for x in leaves if isinstance(x, DeviceTensor)]
        if func is torch.ops.prim.device.default:
            return on[0].device if on else func(*args, **kwargs)
        if func is torch.ops.prim.layout.default and on:
            return on[0].stored.layout
        target = kwargs.get("device")
        to_device = bool(on) if target is None else torch.device(target).type == DEVICE.type
        for x in leaves:
            if isinstance(x, _GENERATOR) and to_device != (x._cdata in _on_device):
                raise DeviceMismatch(f"{func}: the generator is not on the device of the tensor, at {_at()}")
        if not on and not to_device:
            return func(*args, **kwargs)
        self._check(operation, args, leaves, on)
        self._count_waits(func, operation, args, kwargs, bool(on), to_device)
        if operation.launches:
            self._counts.operations[operation.name] += 1
        result = func(*tree_map(_stored, args), **tree_map(_stored, kwargs))
        if operation.in_place is not None:
            written = tuple(kwargs[a] if isinstance(a, str) else args[a] for a in operation.in_place)
            for x in written:
                if isinstance(x, DeviceTensor) and x.shape != x.stored.shape:
                    raise NotImplementedError(f"{operation.name} resizes a tensor of the simulated device")
            return written[0] if len(written) == 1 else written or None
        return tree_map(_wrapped, result) if to_device else result

    def _check(self, op: _Operation, args: Any, leaves: list[Any], on: list[Any]) -> None:
        """Raise `DeviceMismatch` where CUDA refuses tensors of the CPU."""
        off = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, DeviceTensor)]
        if not on or not off or op.name in COPIES:
            return
        if op.name in INDEXING and isinstance(args[0], DeviceTensor):
            off = [
                x for x in args[2:3] if isinstance(x, Tensor) and not isinstance(x, DeviceTensor) and x.dim()
            ]
        elif op.name not in INDEXING | NO_HOST_SCALARS and not op.name.startswith(("_foreach", "_fused")):
            off = [x for x in off if x.dim() > 0]
        if off:
            raise DeviceMismatch(
                f"{op.name}: found tensors on {DEVICE} and on the CPU {[tuple(x.shape) for x in off]}, at {_at()}"
            )

    def _count_waits(
        self, func: Any, op: _Operation, args: Any, kwargs: Any, on: bool, to_device: bool
    ) -> None:
        if op.name == "_to_copy" and on != to_device:
            self._count_copy(func, args[0], to_device, bool(kwargs.get("non_blocking")))
        elif op.name == "copy_" and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            to_device = isinstance(args[0], DeviceTensor)
            self._count_copy(func, args[1] if to_device else args[0], to_device, non_blocking)
        elif op.name in WAITING or (op.name == "repeat_interleave" and kwargs.get("output_size") is None):
            self._counts.wait(str(func))
        elif op.name in INDEXING:
            indices = [x for x in args[1] if isinstance(x, Tensor)]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                self._counts.wait(f"{func} (boolean index)")
            elif not all(isinstance(x, DeviceTensor) for x in indices):
                self._counts.wait(f"{func} (index on the CPU)")

    def _count_copy(self, func: Any, on_host: Tensor, to_device: bool, non_blocking: bool) -> None:
        if not (non_blocking and getattr(on_host, "pinned_by_simulation", False)):
            self._counts.wait(f"{func} ({'from' if to_device else 'to'} the CPU)")


def _at() -> str:
    place, line = _place()
    return f"{place} (line {line})"


def _stored(x: Any) -> Any:
    if isinstance(x, DeviceTensor):
        return x.stored
    return _CPU if isinstance(x, torch.device) and x.type == DEVICE.type else x


def _wrapped(x: Any) -> Any:
    return DeviceTensor(x) if isinstance(x, Tensor) and not isinstance(x, DeviceTensor) else x


_on_device: set[int] = (
    set()
)  # addresses of generators on the device; operations receive the C++ generator only


class _Generator(torch.Generator):
    """A generator that can be created on the simulated device; it gives the numbers of a CPU generator."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        generator = super().__new__(cls, "cpu")
        generator.place = torch.device(device)  # type: ignore[attr-defined]
        if generator.device.type == DEVICE.type:
            _on_device.add(generator._cdata)
        return generator

    def __init__(self, device: Any = "cpu") -> None:
        """The device is set in `__new__`."""

    def __del__(self) -> None:
        _on_device.discard(self._cdata)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place  # type: ignore[attr-defined,no-any-return]


class _Autocast(torch.autocast):
    """Accepts the simulated device, on which it has no effect."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


@contextmanager
def simulated_device() -> Iterator[Counts]:
    """Create the device, so that `torch.device("lazy")` can be used until the end of the context."""
    counts = Counts()
    tolist, quantile = Tensor.tolist, Tensor.quantile

    def simulated_tolist(self: Tensor) -> Any:
        if isinstance(self, DeviceTensor):
            counts.wait("tolist")
            return tolist(self.stored)
        return tolist(self)

    def simulated_quantile(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Torch removes the last dimension of its result in place, which a wrapper cannot do. It does not wait."""
        if not isinstance(self, DeviceTensor):
            return quantile(self, *args, **kwargs)
        counts.operations["quantile"] += 1
        return DeviceTensor(quantile(self.stored, *map(_stored, args), **kwargs))

    def simulated_pin_memory(self: Tensor, device: Any = None) -> Tensor:
        if isinstance(self, DeviceTensor):
            raise RuntimeError("only CPU tensors can be pinned")
        pinned = self.clone(memory_format=torch.contiguous_format)
        pinned.pinned_by_simulation = True  # type: ignore[attr-defined]
        return pinned

    def with_device(supported: Callable[[], list[str]]) -> Callable[[], list[str]]:
        return lambda: [*supported(), DEVICE.type]

    safe_open = safetensors.torch.safe_open

    def simulated_safe_open(*args: Any, device: Any = "cpu", **kwargs: Any) -> Any:
        return safe_open(
            *args, device="cpu" if torch.device(device).type == DEVICE.type else device, **kwargs
        )

    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "Generator", _Generator),
            (torch, "autocast", _Autocast),
            (Tensor, "tolist", simulated_tolist),
            (Tensor, "pin_memory", simulated_pin_memory),
            (Tensor, "quantile", simulated_quantile),
            (safetensors.torch, "safe_open", simulated_safe_open),  # loads to the CPU
            *(
                (optimizers, name, with_device(getattr(optimizers, name)))
                for name in ("_get_fused_kernels_supported_devices", "_get_foreach_kernels_supported_devices")
            ),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=)` is then a copy from the CPU
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.enter_context(_Device(counts))
        yield counts
