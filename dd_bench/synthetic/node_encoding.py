"""The lossless encodings of a node set in a file: sparse or dense features, and edges as a list or as a triangle.

The smaller encoding is used. The sizes of full graphs and of distilled sets can therefore be compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dd_bench.data.nodes import undirected
from dd_bench.synthetic.base import check_finite, require_tensors
from dd_bench.synthetic.graphs import to_smallest_dtype

MAX_VALUES = 1 << 28
"""Maximum number of features of all nodes of a set that is read from a file, 1 GiB."""


def encode_features(features: Tensor) -> dict[str, Tensor]:
    """Return the tensors of features `(n, d)`.

    - `features`: all values, float32; or, if this is smaller,
    - `feature_counts (n,)`, the number of non-zero values of each node; `feature_columns`, their columns in ascending
      order, node after node; and `feature_values`, their values. If all non-zero values of each node are equal, as for
      binary features divided by their sum, `node_values (n,)` replaces `feature_values`.
    """
    n, d = features.shape
    present = features != 0
    counts = present.sum(1)
    values = features[present]
    per_node = features.gather(1, present.byte().argmax(1, keepdim=True))[
        :, 0
    ]  # 0 for a node without features
    equal = torch.equal(per_node.repeat_interleave(counts), values)
    parts = {
        "feature_columns": to_smallest_dtype(present.nonzero()[:, 1]),
        "feature_counts": to_smallest_dtype(counts),
        **({"node_values": per_node} if equal else {"feature_values": values}),
    }
    if not len(values) or sum(t.numel() * t.element_size() for t in parts.values()) >= 4 * n * d:
        return {"features": features.contiguous()}
    return parts


def decode_features(tensors: dict[str, Tensor], n: int, d: int) -> Tensor:
    """Return features `(n, d)` from the tensors of `encode_features`, which may come from an untrusted source.

    Raises:
        ValueError: the tensors are inconsistent, or a value is not finite.
    """
    if "features" in tensors:
        features = tensors["features"]
        if features.shape != (n, d) or features.dtype != torch.float32:
            raise ValueError(
                f"features must be float32 ({n}, {d}), got {features.dtype} {tuple(features.shape)}"
            )
        check_finite("features", features)
        return features
    require_tensors(tensors, "feature_columns", "feature_counts")
    if n * d > MAX_VALUES:
        raise ValueError(
            f"a set must have at most {MAX_VALUES:,} features in total, got {n} nodes with {d} each"
        )
    columns, counts = tensors["feature_columns"].long(), tensors["feature_counts"].long()
    if counts.shape != (n,) or bool(((counts < 0) | (counts > d)).any()) or int(counts.sum()) != len(columns):
        raise ValueError(f"feature_counts must be {n} numbers in 0..{d} with the sum {len(columns)}")
    if columns.ndim != 1 or bool(((columns < 0) | (columns >= d)).any()):
        raise ValueError(f"feature_columns must be in 0..{d - 1}")
    name = "node_values" if "node_values" in tensors else "feature_values"
    require_tensors(tensors, name)
    values, expected = tensors[name], n if name == "node_values" else len(columns)
    if values.dtype != torch.float32 or values.shape != (expected,):
        raise ValueError(f"{name} must be float32 ({expected},), got {values.dtype} {tuple(values.shape)}")
    check_finite(name, values)
    rows = torch.arange(n).repeat_interleave(counts)
    features = torch.zeros(n, d)
    features[rows, columns] = values[rows] if name == "node_values" else values
    return features


def encode_edges(n: int, edges: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
    """Return the tensors of undirected edges `(2, e)`, each of which is stored once; empty without edges.

    - `edges (2, e / 2)`, and `edge_weights (e / 2,)` if there are weights; or, if this is smaller,
    - `adjacency (n (n - 1) / 2,)`, the weights of all pairs of nodes (0, 1), (0, 2), ..., with 0 for no edge.
    """
    once = edges[0] < edges[1]
    if not bool(once.any()):
        return {}
    pairs = edges[:, once]
    pairs = pairs[:, (pairs[0] * n + pairs[1]).argsort()]
    listed = {"edges": to_smallest_dtype(pairs)}
    if weights is None:
        return listed
    by_pair = weights[once][(edges[0, once] * n + edges[1, once]).argsort()].contiguous()
    size = pairs.numel() * listed["edges"].element_size() + 4 * len(by_pair)
    if size <= 4 * (n * (n - 1) // 2):
        return {**listed, "edge_weights": by_pair}
    triangle = torch.zeros(n * (n - 1) // 2)
    a, b = pairs
    triangle[a * n - a * (a + 1) // 2 + b - a - 1] = by_pair
    return {"adjacency": triangle}


def decode_edges(tensors: dict[str, Tensor], n: int) -> tuple[Tensor, Tensor | None]:
    """Return edges in both directions `(2, e)` and their weights from the tensors of `encode_edges`.

    Raises:
        ValueError: the tensors are inconsistent, or a weight is negative or not finite.
    """
    if "adjacency" in tensors:
        triangle = tensors["adjacency"]
        if triangle.shape != (math.comb(n, 2),) or triangle.dtype != torch.float32:
            raise ValueError(
                f"adjacency must be float32 ({math.comb(n, 2)},), got {triangle.dtype} {tuple(triangle.shape)}"
            )
        pairs = torch.triu_indices(n, n, 1)
        present = triangle != 0
        return undirected(pairs[:, present], triangle[present])
    if "edges" not in tensors:
        return torch.zeros(2, 0, dtype=torch.int64), None
    pairs = tensors["edges"].long()
    weights = tensors.get("edge_weights")
    if pairs.ndim != 2 or len(pairs) != 2 or bool(((pairs < 0) | (pairs >= n)).any()):
        raise ValueError(f"edges must be pairs of nodes in 0..{n - 1}")
    if weights is not None and weights.shape != pairs.shape[1:]:
        raise ValueError(
            f"edge_weights must have one value per edge, {pairs.shape[1]}, got {tuple(weights.shape)}"
        )
    return undirected(pairs, weights)
