"""Graph neural networks: labels embedded, a few rounds of messages, one readout a graph, one linear layer.

The convolutions are PyG's. They agree on whole graphs and on computation trees: a tree's root gets the embedding
that its node has in the graph, as long as there are no more layers than levels and no BatchNorm in train mode. GCN
divides by degrees, which a tree does not show at its leaves: it takes them from `Graphs.degrees`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.data.pyg import import_pyg
from dd_bench.models.network import Network


class GNN(Network):
    """A network on graphs: `layers` convolutions of width `hidden`, ReLU, and a readout over the roots.

    Node labels are embedded column by column and summed, edge labels likewise where the convolution takes them.
    """

    modality: ClassVar[str] = "graph"
    uses_edge_weights: ClassVar[bool] = False
    """Whether it takes `Graphs.weights`."""

    def __init__(
        self,
        shape: GraphShape,
        num_classes: int,
        *,
        layers: int,
        hidden: int,
        dropout: float,
        norm: Literal["none", "batch", "layer"],
        readout: Literal["sum", "mean"],
        jk: Literal["last", "sum"],
    ):
        """Takes what the labels are, and the knobs.

        Args:
            shape: values of the labels of nodes and edges.
            num_classes: k.
            layers: rounds of messages, >= 1.
            hidden: width.
            dropout: share of the hidden values dropped after each layer.
            norm: after each convolution.
            readout: of the embeddings of a graph's nodes, or of its roots where it has some.
            jk: what is read out: the last layer, or the sum over all of them.

        Raises:
            ValueError: a knob is out of range.
            ImportError: PyG is not installed.
        """
        super().__init__()
        if layers < 1 or hidden < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"layers={layers}, hidden={hidden}, dropout={dropout}: wanted >= 1, >= 1, in [0, 1)"
            )
        for knob, value, known in (
            ("norm", norm, ("none", "batch", "layer")),
            ("readout", readout, ("sum", "mean")),
            ("jk", jk, ("last", "sum")),
        ):
            if value not in known:
                raise ValueError(f"model.{knob}={value!r}: wanted one of {', '.join(known)}")
        self.shape, self.dropout, self.readout, self.jk = shape, dropout, readout, jk
        self.nodes = Labels(shape.nodes, hidden)
        self.edges = nn.ModuleList([self.edge_encoder(hidden) for _ in range(layers)])
        self.convs = nn.ModuleList([self.conv(hidden) for _ in range(layers)])
        kinds = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norms = nn.ModuleList([kinds[norm](hidden) for _ in range(layers)])  # type: ignore[operator]
        self.classifier = nn.Linear(hidden, num_classes)

    @abstractmethod
    def conv(self, hidden: int) -> nn.Module:
        """Return a convolution from `hidden` to `hidden`."""

    def edge_encoder(self, hidden: int) -> nn.Module:
        """Return what embeds the labels of edges for a layer; most convolutions do not look at them."""
        return nn.Identity()

    @abstractmethod
    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """Return `(v, hidden)`: what layer number `layer` makes of the embeddings."""

    def activations(self, x: Graphs) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
        """See `Network`; a graph has no maps. In float32: a readout sums over hundreds of nodes."""
        with torch.autocast(x.device.type, enabled=False):
            return [], self._embed(x)

    def forward(self, x: Graphs) -> Tensor:  # type: ignore[override]
        """See `Network`."""
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.classifier(self._embed(x))
        return logits

    def _embed(self, x: Graphs) -> Tensor:
        h: Tensor = self.nodes(x.nodes)
        total = torch.zeros_like(h)
        last = len(self.convs) - 1
        for layer, norm in enumerate(self.norms):
            h = norm(self.message(layer, h, x))
            h = h if layer == last else torch.relu(h)
            h = nn.functional.dropout(h, self.dropout, self.training)
            total = total + h
        return self._read_out(total if self.jk == "sum" else h, x)

    def _read_out(self, h: Tensor, graphs: Graphs) -> Tensor:
        graph_of = graphs.graph_of
        if graphs.roots is not None:
            at = graphs.roots.nonzero().flatten()
            h, graph_of = h[at], graph_of[at]
        out = h.new_zeros(len(graphs), h.shape[1]).index_add(0, graph_of, h)
        if self.readout == "mean":
            out = out / torch.bincount(graph_of, minlength=len(graphs)).clamp_min(1)[:, None]
        return out


class Labels(nn.Module):
    """The sum of one embedding a column of labels; of float weights, what they weigh."""

    def __init__(self, values: tuple[int, ...], hidden: int):
        """Takes the number of values of each column."""
        super().__init__()
        self.table = nn.Embedding(sum(values), hidden)
        nn.init.xavier_uniform_(self.table.weight)
        start = [sum(values[:i]) for i in range(len(values))]
        self.start: Tensor
        self.register_buffer("start", torch.tensor(start), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Return `(v, hidden)` of int64 labels `(v, f)` or float32 weights `(v, sum of values)`."""
        if labels.is_floating_point():
            return labels @ self.table.weight
        out: Tensor = self.table(labels + self.start).sum(1)
        return out


class GCN(GNN):
    """Kipf and Welling, ICLR 2017; blind to edge labels."""

    uses_edge_weights = True

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").GCNConv(hidden, hidden, normalize=False)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`; the degrees are those of the graph that a node comes from."""
        edges, weights = graphs.normalised
        out: Tensor = self.convs[layer](x, edges, weights.to(x.dtype))
        return out


class GAT(GNN):
    """Velickovic et al., ICLR 2018; blind to edge labels, as Mirage's released networks have it."""

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").GATConv(hidden, hidden)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`."""
        out: Tensor = self.convs[layer](x, graphs.edges)
        return out


class SAGE(GNN):
    """GraphSAGE with the mean (Hamilton et al., NeurIPS 2017); blind to edge labels."""

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").SAGEConv(hidden, hidden)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`."""
        out: Tensor = self.convs[layer](x, graphs.edges)
        return out


class GIN(GNN):
    """Xu et al., ICLR 2019; where edges have labels, their embeddings are added to the messages (GINE)."""

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        kind = import_pyg("nn").GINEConv if self.shape.edges else import_pyg("nn").GINConv
        return kind(mlp, train_eps=True)  # type: ignore[no-any-return]

    def edge_encoder(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return Labels(self.shape.edges, hidden) if self.shape.edges else nn.Identity()

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`."""
        more = (self.edges[layer](graphs.edge_labels),) if self.shape.edges else ()
        out: Tensor = self.convs[layer](x, graphs.edges, *more)
        return out
