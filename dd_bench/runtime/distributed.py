"""Data-parallel training of one network by several processes, for teachers and experts that take long on one GPU.

    torchrun --nproc_per_node 8 -m dd_bench prepare method=METHOD teacher=resnet18 dataset=tiny_imagenet

Each process takes a part of every batch, and torch's DistributedDataParallel averages the gradients. Except
for rounding and dropout masks, the result equals that of one process, so both results have the same cache key. Methods
and evaluators do not use this module. To use several GPUs for them, run a sweep with a Hydra launcher, one job per GPU.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def num_launched() -> int:
    """Return the number of processes started by `torchrun`, or 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """Return the size of the current process group, or 1 if there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process in the current process group, or 0 if there is none."""
    return dist.get_rank() if world_size() > 1 else 0


def local_device(device: torch.device) -> torch.device:
    """Return the device of this process. With several CUDA processes, each uses the GPU of its local rank.

    Raises:
        ValueError: several processes of this machine would use the same GPU.
    """
    if num_launched() == 1 or device.type != "cuda":
        return device
    if device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if local > 1:
        raise ValueError(
            f"runtime.device must not name a GPU if torchrun starts several processes on a machine, got {device} for "
            f"{local} processes. Each process uses the GPU of its LOCAL_RANK. Example: runtime.device=cuda"
        )
    return device


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Inside the context, join the processes started by `torchrun` in a group. Without `torchrun`, do nothing."""
    if num_launched() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def broadcast(value: Any) -> Any:
    """Return, in every process, the `value` of the first process."""
    objects = [value]
    if world_size() > 1:
        dist.broadcast_object_list(objects, src=0)
    return objects[0]


@contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Yield `folder` in the first process, and a temporary copy of it in every other process."""
    dist.barrier()  # the first process has created the folder
    if rank() == 0:
        dist.barrier()
        yield folder
        dist.barrier()
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder.name
        shutil.copytree(folder, copy)
        dist.barrier()  # the first process changes the folder only after all copies are complete
        yield copy
        dist.barrier()


def data_parallel(net: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the network in DistributedDataParallel and convert BatchNorm to SyncBatchNorm.

    Raises:
        ValueError: the network has BatchNorm and `device` is a CPU, where SyncBatchNorm is not supported.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        if device.type != "cuda":
            raise ValueError(
                "training a network with BatchNorm in several processes requires CUDA, to synchronise its batch "
                "statistics. Use one process, or model.norm=instancenorm"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)


def local_part(value: Any, size: int) -> Any:
    """Return this process's part of a batch of `size` images. Every tensor in `value` with `size` rows is sliced."""
    if isinstance(value, Tensor):
        return value[rank() :: world_size()] if value.ndim and len(value) == size else value
    if isinstance(value, tuple):
        return tuple(local_part(v, size) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: local_part(getattr(value, f.name), size) for f in fields(value)})
    return value


def loss_weight(local_size: int, size: int) -> float:
    """Return the weight of a mean loss over `local_size` images.

    The average of the weighted losses over the processes is the mean loss over the `size` images of the batch.
    """
    return local_size * world_size() / size
