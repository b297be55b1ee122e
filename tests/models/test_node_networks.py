"""Networks of node classification: contract of each YAML file, and equality with an MLP on a graph without edges."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate

from dd_bench.data.nodes import NodeGraph, NodeShape
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.models.node_networks import NodeMLP
from dd_bench.records.config_diff import shipped_target, shipped_yaml

FILES = {
    file.stem: file
    for file in sorted(Path(str(files("dd_bench.conf") / "model")).glob("*.yaml"))
    if get_class(shipped_target("model", file.stem)).modality == "node"
}
each_model = pytest.mark.parametrize("name", list(FILES))


def build(name, shape, k=3, **knobs):
    config = {k: v for k, v in shipped_yaml("model", name).items() if not k.startswith("_")}
    small = {key: value for key, value in {"hidden": 8, "heads": 2}.items() if key in config}
    make = get_class(shipped_target("model", name))
    return Architecture(make, config | small | knobs, shape, k, name).fresh(0, torch.device("cpu"))


def test_all_networks_are_found():
    names = ("gcn", "sgc", "gat", "sage", "appnp", "gin", "mlp")
    assert set(FILES) >= {f"node_{name}" for name in names}


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
def test_logits_of_the_requested_nodes(blocks, name):
    net, graph = build(name, blocks.shape).eval(), blocks.train.graph
    every = net(graph)
    index = torch.tensor([7, 3, 110])
    assert every.shape == (120, 3)
    torch.testing.assert_close(net(graph.at(index)), every[index])
    maps, embedding = net.activations(graph.at(index))
    assert maps == [] and len(embedding) == 3
    other = build(name, blocks.shape)(graph)
    assert torch.equal(other, build(name, blocks.shape)(graph)) or any(
        isinstance(m, torch.nn.Dropout) or getattr(m, "dropout", 0) for m in net.modules()
    )


@each_model
def test_every_parameter_gets_a_gradient(blocks, name):
    net = build(name, blocks.shape)
    torch.nn.functional.cross_entropy(
        net(blocks.train.graph.at(blocks.train.index)), blocks.train.labels
    ).backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), label


@each_model
def test_sparse_and_dense_features_give_the_same_logits(name):
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(300, 400, generator=g) < 0.02).float()
    graph = NodeGraph.of(x, torch.tensor([[0, 1, 5, 6], [1, 0, 6, 5]]))
    assert graph.sparse_features is not None
    net = build(name, NodeShape(400)).eval()
    torch.testing.assert_close(net(graph), net(graph.dense()))
    net(graph).sum().backward()
    sparse = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(graph.dense()).sum().backward()
    torch.testing.assert_close(sparse, [p.grad for p in net.parameters()])


def test_gcn_on_a_graph_without_edges_is_an_mlp(blocks):
    gcn, mlp = (build(name, blocks.shape, dropout=0.0) for name in ("node_gcn", "node_mlp"))
    weights = [p.detach() for p in gcn.parameters()]  # bias and weight of each convolution
    with torch.no_grad():
        for layer, (bias, weight) in zip(
            [*mlp.layers, mlp.classifier], [weights[:2], weights[2:]], strict=True
        ):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    graph = blocks.train.graph
    torch.testing.assert_close(gcn(graph.without_edges()), mlp(graph))
    assert not torch.allclose(gcn(graph), mlp(graph))
    assert isinstance(mlp, NodeMLP)


@each_model
def test_edges_matter_except_for_the_mlp(blocks, name):
    net, graph = build(name, blocks.shape).eval(), blocks.train.graph
    same = torch.allclose(net(graph), net(graph.without_edges()))
    assert same == (not type(net).uses_edges) == (name == "node_mlp")


@each_model
def test_weights_of_edges(blocks, name):
    graph = blocks.train.graph
    edges = graph.adjacency.edges
    weights = torch.where((edges.sum(0) % 2) == 0, 0.2, 3.0)
    weighted = NodeGraph.of(graph.features, edges, weights)
    net = build(name, blocks.shape).eval()
    assert torch.allclose(net(graph), net(weighted)) == (not type(net).uses_edge_weights)


@each_model
def test_other_modalities_are_not_accepted(name, convnet, blobs, blocks):
    factory = instantiate(shipped_yaml("model", name))
    reason = Architecture(factory.func, dict(factory.keywords), (1, 28, 28), 10, name).check_shape()
    assert reason.endswith("requires nodes, but the dataset contains images. Use model=convnet")
    other = convnet(blobs)
    reason = Architecture(other.make, other.knobs, blocks.shape, 3, "convnet").check_shape()
    assert reason == "ConvNet requires images, but the dataset contains nodes. Use model=node_gcn"


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("node_gcn", {"layers": 0}, "got 0, "),
        ("node_mlp", {"dropout": 1.0}, r"and 1\.0"),
        ("node_gat", {"heads": 3}, r"divide model\.hidden=8, got 3"),
        ("node_sgc", {"hops": -1}, "got -1"),
        ("node_appnp", {"alpha": 2.0}, r"and 2\.0"),
    ],
)
def test_invalid_arguments(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        build(name, NodeShape(4), **knobs)
