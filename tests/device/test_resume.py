"""Interrupted runs on the simulated device resume with the same bytes: the state moves to the CPU and back."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.gnn import GCN
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.runtime import checkpoint, interruption
from dd_bench.runtime.loggers import Jsonl
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.training.resume import Checkpoints

FAST = ("dm", "sre2l")
METHODS = [
    file.stem
    for file in sorted(Path(str(files("dd_bench.conf") / "method")).glob("*.yaml"))
    if "iterations" in shipped_yaml("method", file.stem)
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in METHODS]
)
def test_methods(counts, runtime, make_method, make_ctx, gin, motifs, node_gcn, blocks, train_blobs, name):
    kind = type(make_method(name)).modalities[0]
    real = {"image": train_blobs, "graph": motifs, "node": blocks}[kind].train_only().to(runtime.device)
    networks = {"graph": replace(gin(motifs), make=GCN), "node": node_gcn(blocks)}
    network = {"architecture": networks[kind]} if kind in networks else {}

    def distilled(work, killed_at=None):
        ctx = make_ctx(work=work, killed_at=killed_at, **network)
        return make_method(name, iterations=3).distill(real, 2, ctx).tensors()

    whole = distilled("whole")
    with pytest.raises(KeyboardInterrupt):
        distilled("killed", killed_at=2)
    resumed = distilled("killed")
    assert whole.keys() == resumed.keys()
    for key, tensor in whole.items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, resumed[key]), key


def test_a_checkpoint_waits_once(counts, runtime, tmp_path):
    """The check for finite values waits once, too."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).to(runtime.device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    net(torch.ones(4, 2, device=runtime.device)).sum().backward()
    optimizer.step()
    state = {"net": net, "optimizer": optimizer, "empty": torch.zeros(0, device=runtime.device)}
    counts.waits.clear()
    loop = OuterLoop(tmp_path, Jsonl(tmp_path / "log.jsonl"), log_every=1, checkpoint_seconds=0.0)
    assert list(loop.steps(1, state, "loop")) == [0]
    assert counts.waits.total() == 2
    saved = load_file(tmp_path / "loop.checkpoint.safetensors")
    for name, t in checkpoint.tensors_in(state).items():
        assert torch.equal(saved[name], t.cpu()), name


@pytest.mark.parametrize("rule", [{}, {"selection": "best_on_val", "eval_every": 1}])
def test_fresh_networks(counts, runtime, real_set, convnet, protocol, recipe, tmp_path, terminate_at, rule):
    real = real_set(val_fraction=0.25).to(runtime.device)
    index = torch.arange(12, device=runtime.device)
    plan = recipe(epochs=4, batch_size=4, augment="color_crop_cutout")
    fresh = FreshNetworks(
        convnet(real), protocol(recipe=plan, **rule), real.train.inputs(index), real.train.labels[index],
        real.test, real.val, real.flip, runtime,
    )  # fmt: skip
    seeds = {0: 10, 1: 11}
    whole = dict(fresh.scores(seeds, total=2))
    steps = terminate_at(5)  # in the middle of an epoch of three steps
    interrupted = replace(fresh, unfinished=Checkpoints(tmp_path / "set", 60.0))
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        list(interrupted.scores(seeds, total=2))
    assert len(steps) == 5
    assert dict(interrupted.scores(seeds, total=2)) == whole
