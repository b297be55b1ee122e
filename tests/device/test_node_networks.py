"""Training steps of every network of nodes on the simulated device: one device, and no wait."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_class

from dd_bench.data.node_dataset import training_nodes
from dd_bench.models.architecture import Architecture
from dd_bench.records.config_diff import shipped_target, shipped_yaml

MODELS = [
    file.stem
    for file in sorted(Path(str(files("dd_bench.conf") / "model")).glob("*.yaml"))
    if get_class(shipped_target("model", file.stem)).modality == "node"
]


@pytest.mark.parametrize("name", MODELS)
def test_steps_do_not_wait(counts, runtime, blocks, name):
    config = {k: v for k, v in shipped_yaml("model", name).items() if not k.startswith("_")}
    small = {key: value for key, value in {"hidden": 8, "heads": 2}.items() if key in config}
    make = get_class(shipped_target("model", name))
    net = Architecture(make, config | small, blocks.shape, 3, name).fresh(0, runtime.device)
    train = training_nodes(blocks).to(runtime.device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(train.graph.at(train.index)), train.labels).backward()
        optimizer.step()

    step()  # computes the sparse matrices of the graph
    before = counts.snapshot()
    for _ in range(2):
        step()
    assert not (counts - before).waits and counts.launches > before.launches
