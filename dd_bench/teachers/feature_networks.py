"""Networks trained on the real training set: feature extractors and teachers, cached for every run that wants them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime.checkpoint import remove, spent
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.seeding import seed_for
from dd_bench.training.batches import fetch_split
from dd_bench.training.compilation import repays_compilation
from dd_bench.training.loop import train
from dd_bench.training.recipe import Recipe


def feature_network(
    real: RealSet, architecture: Architecture, recipe: Recipe, index: int, ctx: RunContext
) -> Network:
    """Returns network number `index` of `architecture`, trained on `real.train` by `recipe`, in eval mode.

    Built once: the cache entry depends on the data, their preprocessing, the architecture, the recipe, the index
    and the precision, not on the run's seed, so that all methods and seeds of a sweep share it.

    Raises:
        ValueError: the entry of the cache is damaged.
        Diverged: the trained network is not finite.
    """
    seed = seed_for(0, "teacher", index)
    net = untrained_feature_network(architecture, index, ctx)

    def build(folder: Path) -> float:
        kept = folder / "training.checkpoint.safetensors"
        done, before = spent(kept)
        split, compiled = (
            real.train,
            repays_compilation(recipe.epochs * len(real.train), real.shape, ctx.runtime),
        )

        with Progress(f"teacher {index}", recipe.epochs, done) as progress:
            train(
                net,
                fetch_split(split),
                len(split),
                recipe,
                seed=seed_for(seed, "train"),
                runtime=ctx.runtime,
                flip=real.flip,
                compiled=compiled,
                on_epoch=lambda epoch: progress.advance_to(epoch, {}),
                checkpoint=kept,
            )
        state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
        if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
            raise Diverged(
                f"teacher {index} is not finite after its last epoch. Try a smaller method.teacher.lr than {recipe.lr}"
            )
        save_file(state, folder / "network.safetensors")
        return before

    entry = ctx.cache.entry(
        "teacher",
        {
            "real": real.digest,
            "images": len(real.train),
            "preprocess": real.preprocess.digest,
            "flip": real.flip,
            "architecture": architecture.describe(),
            "recipe": recipe.identity(),
            "index": index,
            "autocast": ctx.runtime.autocast,
            "device": ctx.device.type,
        },
        build,
    )
    remove(entry)
    try:
        net.load_state_dict(load_file(entry / "network.safetensors", device=str(ctx.device)))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"cache entry {entry} is damaged ({error}). To build it anew: rm -r {entry}"
        ) from error
    return net.to(memory_format=torch.contiguous_format).eval()


def untrained_feature_network(architecture: Architecture, index: int, ctx: RunContext) -> Network:
    """Returns the untrained network that teacher `index` started from."""
    return architecture.fresh(seed_for(seed_for(0, "teacher", index), "init"), ctx.device)


@torch.no_grad()
def class_embeddings(net: Network, real: RealSet, c: int) -> Tensor:
    """Returns the embeddings of all training images of class `c`, `(n_c, d)`, in the order of `of_class(c)`."""
    return torch.cat(
        [net.embed(real.train.inputs(part)) for part in torch.split(real.train.of_class(c), 1000)]
    )
