"""Networks on graphs: contract of each YAML file, independence within a batch, float labels, invalid arguments."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate

from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.records.config_diff import shipped_target, shipped_yaml

FILES = {
    file.stem: file
    for file in sorted(Path(str(files("dd_bench.conf") / "model")).glob("*.yaml"))
    if get_class(shipped_target("model", file.stem)).modality == "graph"
}
CPU = torch.device("cpu")
each_model = pytest.mark.parametrize("name", list(FILES))


def test_all_networks_are_found():
    assert set(FILES) >= {"gcn", "gat", "gin", "sage"}


@each_model
def test_yaml_has_a_comment_and_every_hyperparameter(name):
    config = shipped_yaml("model", name)
    assert FILES[name].read_text().startswith("# ")
    cls = get_class(config["_target_"])
    assert issubclass(cls, Network)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[3:]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    assert {p.name for p in parameters} == set(config) - {"_target_", "_partial_"}


@each_model
@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("jk", ["last", "sum"])
def test_output_for_a_graph_does_not_depend_on_its_batch(make_gnn, motifs, name, readout, jk):
    net = make_gnn(name, motifs.shape, readout=readout, jk=jk).double().eval()
    graphs = motifs.train.inputs(torch.tensor([3, 0, 7]))
    together = net(graphs)
    alone = torch.cat([net(graphs[torch.tensor([i])]) for i in range(3)])
    assert together.shape == (3, 2)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(net.classifier(net.embed(graphs)), together)
    assert net.activations(graphs)[0] == []


@each_model
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_every_parameter_gets_a_gradient(make_gnn, motifs, name, norm):
    net = make_gnn(name, motifs.shape, norm=norm, jk="sum", dropout=0.1).train()
    net(motifs.train.inputs(torch.arange(8))).square().sum().backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), label


@each_model
def test_a_label_equals_a_one_hot_weight(make_gnn, motifs, name):
    net = make_gnn(name, motifs.shape).double().eval()
    g = motifs.train.inputs(torch.arange(4))
    hot = torch.nn.functional.one_hot(g.nodes[:, 0], motifs.shape.nodes[0])
    as_weights = Graphs(hot.float(), g.edges, g.edge_labels, g.ptr)
    object.__setattr__(as_weights, "nodes", hot.double())
    torch.testing.assert_close(net(as_weights), net(g))


@each_model
def test_only_roots_are_read_out(make_gnn, motifs, name):
    net = make_gnn(name, motifs.shape, layers=1).double().eval()
    g = motifs.train.inputs(torch.arange(2))
    every = torch.ones(len(g.nodes), dtype=torch.bool)
    torch.testing.assert_close(net(Graphs(g.nodes, g.edges, g.edge_labels, g.ptr, every)), net(g))
    first = torch.zeros(len(g.nodes), dtype=torch.bool).index_fill_(0, g.ptr[:-1], True)
    assert not torch.allclose(net(Graphs(g.nodes, g.edges, g.edge_labels, g.ptr, first)), net(g))


def test_only_gin_uses_edge_labels(make_gnn):
    shape = GraphShape((2,), (3,))
    edges = torch.tensor([[0, 1], [1, 0]])
    graphs = [
        Graphs(torch.tensor([[0], [1]]), edges, torch.full((2, 1), label), torch.tensor([0, 2]))
        for label in (0, 2)
    ]
    for name in FILES:
        net = make_gnn(name, shape).eval()
        same = torch.allclose(net(graphs[0]), net(graphs[1]))
        assert same == (name != "gin")


@each_model
def test_images_are_not_accepted(name):
    factory = instantiate(shipped_yaml("model", name))
    reason = Architecture(factory.func, dict(factory.keywords), (1, 28, 28), 10, name).check_shape()
    assert reason.endswith("requires graphs, but the dataset contains images. Use model=convnet")


def test_networks_on_images_do_not_accept_graphs(convnet, blobs, motifs):
    other = convnet(blobs)
    reason = Architecture(other.make, other.knobs, motifs.shape, 2, "convnet").check_shape()
    assert reason == "ConvNet requires images, but the dataset contains graphs. Use model=gin"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"layers": 0}, "got 0, "),
        ({"dropout": 1.0}, "and 1.0"),
        ({"norm": "instance"}, "model.norm must be one of none, batch, layer, got 'instance'"),
    ],
)
def test_invalid_arguments(make_gnn, motifs, knobs, message):
    with pytest.raises(ValueError, match=message):
        make_gnn("gin", motifs.shape, **knobs)
