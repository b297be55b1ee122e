"""When `torch.compile` saves more time than its warm-up takes."""

from __future__ import annotations

from dd_bench.data.graphs import GraphShape
from dd_bench.runtime.runtime import Runtime


def repays_compilation(images: int, shape: tuple[int, int, int] | GraphShape, runtime: Runtime) -> bool:
    """Whether compiling saves more than its warm-up takes, for `images` images of `shape` passed through networks.

    `compile_after` counts images of 28x28; larger images count by their area.
    """
    if (
        isinstance(shape, GraphShape) or runtime.compile_after is None
    ):  # no two batches of graphs are of one size
        return False
    return images * shape[1] * shape[2] >= runtime.compile_after * 28 * 28
