"""Networks of node classification, made of PyG's convolutions: GCN, SGC, GAT, SAGE, APPNP, GIN and MLP.

Convolutions multiply sparse CSR matrices of the graph, which need memory linear in the edges; only GAT computes a value
for each edge. On a graph without edges, every network is an MLP.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from dd_bench.data.nodes import Adjacency, NodeGraph, NodeShape
from dd_bench.data.pyg import import_pyg
from dd_bench.models.network import Network


class NodeNetwork(Network):
    """A network that maps a graph to the logits of its nodes.

    It returns the logits of `NodeGraph.nodes`, `(n, k)`. The embedding of a node is the input of the last layer, which
    is a convolution. So there is no attribute `classifier`, except in MLP, SGC and APPNP.
    """

    modality: ClassVar[str] = "node"
    uses_edge_weights: ClassVar[bool] = True
    """Whether the network uses the weights of edges. GAT treats all edges alike."""
    uses_edges: ClassVar[bool] = True

    @abstractmethod
    def hidden(self, graph: NodeGraph) -> Tensor:
        """Return the embedding of every node of the graph, `(v, hidden)`."""

    @abstractmethod
    def last(self, h: Tensor, graph: NodeGraph) -> Tensor:
        """Return the logits of every node, `(v, k)`, from the embeddings `h (v, hidden)`."""

    def activations(self, x: NodeGraph) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
        """See `Network`; there are no maps. The embeddings are those of `NodeGraph.nodes`."""
        return [], _read_out(self.hidden(x), x)

    def forward(self, x: NodeGraph) -> Tensor:  # type: ignore[override]
        """See `Network`. Computed in float32, because sparse products do not support half precision."""
        with torch.autocast(x.device.type, enabled=False):
            return _read_out(self.last(self.hidden(x), x), x)


class ConvolutionNetwork(NodeNetwork):
    """`layers` convolutions of width `hidden`, with ReLU and dropout after each but the last."""

    def __init__(self, shape: NodeShape, num_classes: int, *, layers: int, hidden: int, dropout: float):
        """Build the network for graphs.

        Args:
            shape: number of features.
            num_classes: k.
            layers: number of convolutions, >= 1.
            hidden: width of all layers but the last.
            dropout: dropout probability, in [0, 1).

        Raises:
            ValueError: a hyper-parameter is out of range.
            ImportError: PyG is not installed.
        """
        super().__init__()
        _check(layers=layers, hidden=hidden, dropout=dropout)
        self.dropout = dropout
        widths = [shape.features, *[hidden] * (layers - 1), num_classes]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList([self.conv(*pair, last=pair is pairs[-1]) for pair in pairs])

    @abstractmethod
    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """Return a convolution from `inputs` to `outputs` features; `last` for that of the logits."""

    @abstractmethod
    def matrix(self, adjacency: Adjacency) -> Tensor:
        """Return what the convolutions are called with: a sparse matrix or edges."""

    def hidden(self, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        h, matrix = graph.inputs, self.matrix(graph.adjacency)
        for conv in self.convs[:-1]:
            h = dropout(torch.relu(conv(h, matrix)), self.dropout, self.training)
        return h

    def last(self, h: Tensor, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        out: Tensor = self.convs[-1](h, self.matrix(graph.adjacency))
        return out


class NodeGCN(ConvolutionNetwork):
    """GCN (Kipf and Welling, ICLR 2017)."""

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """See `ConvolutionNetwork`."""
        return _conv("GCNConv", inputs, outputs, normalize=False)

    def matrix(self, adjacency: Adjacency) -> Tensor:
        """See `ConvolutionNetwork`."""
        return adjacency.normalised


class NodeSAGE(ConvolutionNetwork):
    """GraphSAGE with mean aggregation (Hamilton et al., NeurIPS 2017); edge weights give a weighted mean."""

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """See `ConvolutionNetwork`. The rows of the matrix sum to one, so the sum is a mean."""
        return _conv("SAGEConv", inputs, outputs, aggr="sum")

    def matrix(self, adjacency: Adjacency) -> Tensor:
        """See `ConvolutionNetwork`."""
        return adjacency.averaged

    def hidden(self, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`. The convolution adds features to their mean, so they must be dense."""
        return super().hidden(graph.dense())


class NodeGIN(ConvolutionNetwork):
    """GIN (Xu et al., ICLR 2019) with one linear layer for each convolution, as in Bonsai's evaluation."""

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """See `ConvolutionNetwork`."""
        return _conv("GINConv", nn.Linear(inputs, outputs), train_eps=True)

    def matrix(self, adjacency: Adjacency) -> Tensor:
        """See `ConvolutionNetwork`."""
        return adjacency.summed

    def hidden(self, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`. The convolution adds features to their sum, so they must be dense."""
        return super().hidden(graph.dense())


class NodeGAT(ConvolutionNetwork):
    """GAT (Velickovic et al., ICLR 2018); ignores edge weights. The last layer has a single head.

    The self-loops are part of the edges, because a convolution of PyG that adds them waits for the device.
    """

    uses_edge_weights = False

    def __init__(
        self, shape: NodeShape, num_classes: int, *, layers: int, hidden: int, dropout: float, heads: int
    ):
        """See `ConvolutionNetwork`; `heads` is the number of attention heads, a divisor of `hidden`.

        Raises:
            ValueError: a hyper-parameter is out of range.
        """
        if heads < 1 or hidden % heads:
            raise ValueError(
                f"model.heads must be >= 1 and divide model.hidden={hidden}, got {heads}. Example: model.heads=8"
            )
        self.heads = heads
        super().__init__(shape, num_classes, layers=layers, hidden=hidden, dropout=dropout)

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """See `ConvolutionNetwork`."""
        heads = 1 if last else self.heads
        return _conv("GATConv", inputs, outputs // heads, heads=heads, add_self_loops=False)

    def matrix(self, adjacency: Adjacency) -> Tensor:
        """See `ConvolutionNetwork`; PyG's GAT takes edges."""
        return adjacency.edges_with_loops


class NodeMLP(NodeNetwork):
    """`layers` linear layers of width `hidden`, with ReLU and dropout after each but the last. Ignores edges."""

    uses_edge_weights = False
    uses_edges = False

    def __init__(self, shape: NodeShape, num_classes: int, *, layers: int, hidden: int, dropout: float):
        """See `ConvolutionNetwork` for the arguments."""
        super().__init__()
        _check(layers=layers, hidden=hidden, dropout=dropout)
        self.dropout = dropout
        widths = [shape.features, *[hidden] * (layers - 1)]
        self.layers = nn.ModuleList([_linear(*pair) for pair in pairwise(widths)])
        self.classifier = _linear(widths[-1], num_classes)

    def hidden(self, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        h = graph.inputs
        for layer in self.layers:
            h = dropout(torch.relu(layer(h)), self.dropout, self.training)
        return h

    def last(self, h: Tensor, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        out: Tensor = self.classifier(h)
        return out


class NodeSGC(NodeNetwork):
    """SGC (Wu et al., ICML 2019): one linear layer, and `hops` steps of propagation.

    The logits are propagated instead of the features. This is the same function and faster for many features.
    """

    def __init__(self, shape: NodeShape, num_classes: int, *, hops: int):
        """Take the number of steps of propagation, >= 0.

        Raises:
            ValueError: `hops` is negative.
        """
        super().__init__()
        if hops < 0:
            raise ValueError(f"model.hops must be >= 0, got {hops}. Example: model.hops=2")
        self.hops = hops
        self.classifier = _linear(shape.features, num_classes)

    def hidden(self, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`. The embedding consists of the features, before propagation."""
        return graph.inputs

    def activations(self, x: NodeGraph) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
        """See `NodeNetwork`; the embedding consists of the propagated features."""
        return [], _read_out(x.propagated(self.hops), x)

    def last(self, h: Tensor, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        out: Tensor = nn.functional.linear(h, self.classifier.weight)
        for _ in range(self.hops):
            out = graph.adjacency.normalised @ out
        return out + self.classifier.bias


class NodeAPPNP(NodeMLP):
    """APPNP (Gasteiger et al., ICLR 2019): an MLP, whose logits are propagated by personalised PageRank."""

    uses_edge_weights = True
    uses_edges = True

    def __init__(
        self,
        shape: NodeShape,
        num_classes: int,
        *,
        layers: int,
        hidden: int,
        dropout: float,
        hops: int,
        alpha: float,
    ):
        """See `NodeMLP`; `hops` is the number of steps of propagation and `alpha` the restart probability.

        Raises:
            ValueError: a hyper-parameter is out of range.
        """
        super().__init__(shape, num_classes, layers=layers, hidden=hidden, dropout=dropout)
        if hops < 1 or not 0 <= alpha <= 1:
            raise ValueError(
                f"model.hops must be >= 1 and model.alpha in [0, 1], got {hops} and {alpha}. "
                "Example: model.hops=10 model.alpha=0.1"
            )
        self.propagation = import_pyg("nn").APPNP(hops, alpha, normalize=False)

    def last(self, h: Tensor, graph: NodeGraph) -> Tensor:
        """See `NodeNetwork`."""
        out: Tensor = self.propagation(super().last(h, graph), graph.adjacency.normalised)
        return out


def _conv(name: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Return a convolution of PyG."""
    conv: nn.Module = getattr(import_pyg("nn"), name)(*args, **kwargs)
    return conv


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer with the initialisation of GCN: Glorot weights and zero biases."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _read_out(h: Tensor, graph: NodeGraph) -> Tensor:
    """Return the rows of the nodes that are read out."""
    return h if graph.nodes is None else h[graph.nodes]


def _check(*, layers: int, hidden: int, dropout: float) -> None:
    """Raise ValueError if a hyper-parameter is out of range."""
    if layers < 1 or hidden < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "model.layers and model.hidden must be >= 1 and model.dropout must be in [0, 1), "
            f"got {layers}, {hidden} and {dropout}. Example: model.layers=2 model.hidden=256 model.dropout=0.5"
        )
