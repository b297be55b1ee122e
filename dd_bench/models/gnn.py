"""Graph neural networks: embedded labels, several convolutions, one readout per graph, one linear layer.

The convolutions are those of PyG. They give the same result on a graph and on its computation trees: the root of a tree
has the same embedding as the corresponding node of the graph. This requires that the network has no more layers than
the tree has levels, and no BatchNorm in train mode. GCN divides by degrees. The leaves of a tree lack neighbours, so
their degrees are read from `Graphs.degrees`.
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
    """A network on graphs: `layers` convolutions of width `hidden` with ReLU, and a readout over nodes.

    The readout is over the roots if the graphs have roots (see `Graphs.roots`), and over all nodes otherwise.

    The embedding of a node is the sum of the embeddings of its labels. Edge labels are embedded in the same way if the
    convolution uses them.
    """

    modality: ClassVar[str] = "graph"
    uses_edge_weights: ClassVar[bool] = False
    """Whether the network uses `Graphs.weights`."""

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
        """Build the network for graphs.

        Args:
            shape: number of values of each node label and each edge label.
            num_classes: k.
            layers: number of convolutions, >= 1.
            hidden: width of all layers.
            dropout: dropout probability after each layer, in [0, 1).
            norm: normalisation after each convolution.
            readout: reduction over the embeddings of a graph's nodes, or of its roots if the graph has roots.
            jk: input of the readout: the embeddings of the last layer, or their sum over all layers.

        Raises:
            ValueError: a hyper-parameter is out of range.
            ImportError: PyG is not installed.
        """
        super().__init__()
        if layers < 1 or hidden < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "model.layers and model.hidden must be >= 1 and model.dropout must be in [0, 1), "
                f"got {layers}, {hidden} and {dropout}. Example: model.layers=3 model.hidden=128 model.dropout=0.0"
            )
        for knob, value, known in (
            ("norm", norm, ("none", "batch", "layer")),
            ("readout", readout, ("sum", "mean")),
            ("jk", jk, ("last", "sum")),
        ):
            if value not in known:
                raise ValueError(f"model.{knob} must be one of {', '.join(known)}, got {value!r}")
        self.shape, self.dropout, self.readout, self.jk = shape, dropout, readout, jk
        self.nodes = Labels(shape.nodes, hidden)
        self.edges = nn.ModuleList([self.edge_encoder(hidden) for _ in range(layers)])
        self.convs = nn.ModuleList([self.conv(hidden) for _ in range(layers)])
        kinds = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norms = nn.ModuleList([kinds[norm](hidden) for _ in range(layers)])  # type: ignore[operator]
        self.classifier = nn.Linear(hidden, num_classes)

    @abstractmethod
    def conv(self, hidden: int) -> nn.Module:
        """Return a convolution from `hidden` to `hidden` features."""

    def edge_encoder(self, hidden: int) -> nn.Module:
        """Return the embedding of edge labels for one layer; most convolutions do not use edge labels."""
        return nn.Identity()

    @abstractmethod
    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """Apply convolution number `layer` to the embeddings `x (v, hidden)` of v nodes, and return `(v, hidden)`."""

    def activations(self, x: Graphs) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
        """See `Network`; there are no maps. Computed in float32, because a readout sums over hundreds of nodes."""
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
        graph_of, roots = graphs.graph_of, graphs.roots
        if roots is not None:  # selecting the roots by index would wait for the device
            h = torch.where(roots[:, None], h, 0.0)
        out = h.new_zeros(len(graphs), h.shape[1]).index_add(0, graph_of, h)
        if self.readout == "mean":
            counted = torch.ones_like(graph_of) if roots is None else roots.long()
            count = graph_of.new_zeros(len(graphs)).index_add_(0, graph_of, counted)
            out = out / count.clamp_min(1)[:, None]
        return out


class Labels(nn.Module):
    """Sum of the embeddings of a row of labels, with one table per column. Float weights give a weighted sum."""

    def __init__(self, values: tuple[int, ...], hidden: int):
        """Build the tables from the number of values of each column."""
        super().__init__()
        self.table = nn.Embedding(sum(values), hidden)
        nn.init.xavier_uniform_(self.table.weight)
        start = [sum(values[:i]) for i in range(len(values))]
        self.start: Tensor
        self.register_buffer("start", torch.tensor(start), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed f int64 labels per row, `(v, f)`, or float32 weights `(v, sum(values))`, and return `(v, hidden)`."""
        if labels.is_floating_point():
            return labels @ self.table.weight
        out: Tensor = self.table(labels + self.start).sum(1)
        return out


class GCN(GNN):
    """GCN (Kipf and Welling, ICLR 2017); ignores edge labels."""

    uses_edge_weights = True

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").GCNConv(hidden, hidden, normalize=False)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`. The degree of a node is its degree in the original graph."""
        edges, weights = graphs.normalised
        out: Tensor = self.convs[layer](x, edges, weights.to(x.dtype))
        return out


class GAT(GNN):
    """GAT (Velickovic et al., ICLR 2018); ignores edge labels, like Mirage's released networks.

    PyG's convolution removes self-loops from the edges before it adds its own, so every layer waits for the device.
    """

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").GATConv(hidden, hidden)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`."""
        out: Tensor = self.convs[layer](x, graphs.edges)
        return out


class SAGE(GNN):
    """GraphSAGE with mean aggregation (Hamilton et al., NeurIPS 2017); ignores edge labels."""

    def conv(self, hidden: int) -> nn.Module:
        """See `GNN`."""
        return import_pyg("nn").SAGEConv(hidden, hidden)  # type: ignore[no-any-return]

    def message(self, layer: int, x: Tensor, graphs: Graphs) -> Tensor:
        """See `GNN`."""
        out: Tensor = self.convs[layer](x, graphs.edges)
        return out


class GIN(GNN):
    """GIN (Xu et al., ICLR 2019); if edges have labels, their embeddings are added to the messages (GINE)."""

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
        edge_embeddings = (self.edges[layer](graphs.edge_labels),) if self.shape.edges else ()
        out: Tensor = self.convs[layer](x, graphs.edges, *edge_embeddings)
        return out
