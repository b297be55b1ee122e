"""Several processes that train one network: teachers and experts too large for one GPU's patience, under `torchrun`.

    torchrun --nproc_per_node 8 -m dd_bench prepare method=METHOD teacher=resnet18 dataset=tiny_imagenet

Each process takes a part of every batch, and torch's DistributedDataParallel averages the gradients: up to rounding it
is the training of one process, and it has the same name in the cache (dropout draws other masks). All other work is
spread by launchers, a job a GPU, and needs none of this.
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
    """Returns how many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """Returns how many processes work together now."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def local_device(device: torch.device) -> torch.device:
    """Returns the device of this process: of several with CUDA, each has the one of its local rank."""
    if num_launched() > 1 and device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Joins the processes that `torchrun` started, for as long as the body runs; does nothing without it."""
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
    """Returns the value of the first process, on all of them."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Gives the first process a folder, and each of the others a copy: what they write there is thrown away."""
    dist.barrier()  # the first one has made it
    if rank() == 0:
        dist.barrier()
        yield folder
        dist.barrier()
        return
    with tempfile.TemporaryDirectory() as scratch:
        mine = Path(scratch) / folder.name
        shutil.copytree(folder, mine)
        dist.barrier()  # before the first one changes anything
        yield mine
        dist.barrier()


def data_parallel(net: nn.Module, device: torch.device) -> nn.Module:
    """Returns the network as it is called: gradients are averaged over the processes, BatchNorm sees whole batches.

    Raises:
        ValueError: BatchNorm on the CPU, where its statistics cannot be of the whole batch.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        if device.type != "cuda":
            raise ValueError(
                "a network with BatchNorm needs CUDA to be trained by several processes: the statistics of a part of a "
                "batch are others. Use one process, or model.norm=instancenorm"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)


def local_part(value: Any, size: int) -> Any:
    """Returns this process's part of a batch of `size`: of every tensor in it that has a row an image."""
    if isinstance(value, Tensor):
        return value[rank() :: world_size()] if value.ndim and len(value) == size else value
    if isinstance(value, tuple):
        return tuple(local_part(v, size) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: local_part(getattr(value, f.name), size) for f in fields(value)})
    return value


def loss_weight(mine: int, size: int) -> float:
    """Returns what the mean loss of `mine` images counts, so that the average over processes is that of `size`."""
    return mine * world_size() / size
