"""Decide whether to use `torch.compile`."""

from __future__ import annotations

from dd_bench.data.graphs import GraphShape
from dd_bench.data.nodes import NodeShape
from dd_bench.runtime.runtime import Runtime


def uses_compilation(
    images: int, shape: tuple[int, int, int] | GraphShape | NodeShape, runtime: Runtime
) -> bool:
    """Return whether compilation saves more time than it takes, if networks process `images` images of `shape`.

    `compile_after` is a number of 28x28 images. Images of other sizes count in proportion to their area.
    """
    # batches of graphs have different sizes, so each would be compiled again
    if isinstance(shape, GraphShape | NodeShape) or runtime.compile_after is None:
        return False
    return images * shape[1] * shape[2] >= runtime.compile_after * 28 * 28
