"""Drawings of graphs for the preview of a set."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dd_bench.data.graphs import Graphs

SIDE, SCALE, DOT = 112, 4, 4  # side in pixels; factor of supersampling; radius of a node in pixels
MAX_NODES = 300  # more cannot be distinguished, and their layout takes more than a second


def draw(graphs: Graphs) -> Tensor:
    """Return one picture per graph, pixels in [0, 1] `(n, 3, 112, 112)`.

    Nodes are coloured by label, and roots have a black outline. Only the first `MAX_NODES` nodes and the edges between
    them are drawn. In a tree these are the levels near the root.
    """
    return torch.stack([_picture(graphs[torch.tensor([i])]) for i in range(len(graphs))])


def _picture(graph: Graphs) -> Tensor:
    import networkx as nx  # slow to import, and only sets of graphs need it

    net = nx.Graph()
    shown = min(len(graph.nodes), MAX_NODES)
    net.add_nodes_from(range(shown))
    net.add_edges_from(graph.edges[:, (graph.edges < shown).all(0)].t().tolist())
    size = SIDE * SCALE
    canvas = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(canvas)
    positions = _layout(net) * (size / 2 - 2 * DOT * SCALE) + size / 2
    for a, b in net.edges:
        pen.line([*positions[a], *positions[b]], fill=(150, 150, 150), width=SCALE)
    kinds = graph.nodes.argmax(1) if graph.nodes.is_floating_point() else graph.nodes[:, 0]
    for node, kind in enumerate(kinds[:shown].tolist()):
        x, y = positions[node]
        r = DOT * SCALE
        ring = "black" if graph.roots is not None and bool(graph.roots[node]) else None
        pen.ellipse([x - r, y - r, x + r, y + r], fill=_colour(kind), outline=ring, width=SCALE)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def _layout(net: Any) -> np.ndarray:
    """Return the position of each node in [-1, 1], `(nodes, 2)`."""
    if len(net) == 1:
        return np.zeros((1, 2))
    from networkx import spring_layout

    by_node = spring_layout(net, seed=0, iterations=60, k=1.5 / len(net) ** 0.5)
    positions = np.array([by_node[node] for node in range(len(net))])
    positions -= positions.mean(0)
    return positions / max(float(np.abs(positions).max()), 1e-9)


def _colour(kind: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(kind * 0.381966 % 1, 0.65, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)
