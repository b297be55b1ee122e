"""When `torch.compile` is worth its warm-up."""

from __future__ import annotations

from dd_bench.data.graphs import GraphShape
from dd_bench.runtime.runtime import Runtime


def repays_compilation(images: int, shape: tuple[int, int, int] | GraphShape, runtime: Runtime) -> bool:
    """Whether passing `images` images `(c, h, w)` through networks is worth the compiler's warm-up.

    `compile_after` counts images of 28x28; larger ones count for more, by their area.
    """
    if (
        isinstance(shape, GraphShape) or runtime.compile_after is None
    ):  # no two batches of graphs are of one size
        return False
    return images * shape[1] * shape[2] >= runtime.compile_after * 28 * 28
