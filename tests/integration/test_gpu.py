"""Tests of code that differs on a GPU: batched networks, bf16, compilation, recovery and views.

Run them with `pytest -m gpu tests/integration/test_gpu.py`.
"""

import pytest
import torch

from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.together import train_together
from dd_bench.training.views import ViewRecipe, Views

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
AUTO = {
    "device": "cuda", "precision": "fp32", "compile": "never", "compile_after": 0, "workers": "auto",
    "compile_after_cuda": 0, "spread_after": 0, "threads": "auto", "together": "auto", "graphs": "auto",
    "deterministic": False,
}  # fmt: skip


def on_gpu(**values):
    return resolve(RuntimeConfig(**AUTO | values))


def data(runtime, n=48):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = torch.randn(3, 1, 8, 8, generator=generator)[labels] + 0.3 * torch.randn(
        n, 1, 8, 8, generator=generator
    )
    return images.to(runtime.device), labels.to(runtime.device)


def test_batched_networks_equal_the_loop(blobs, convnet, recipe):
    runtime = on_gpu()
    x, y = data(runtime)
    architecture, options = convnet(blobs), recipe(augment="crop_cutout_rotate")
    loop = [
        train(
            architecture.fresh(s, runtime.device),
            fetch_from(x, y),
            len(x),
            options,
            seed=s,
            runtime=runtime,
            flip=True,
        )
        for s in (0, 1)
    ]
    nets = [architecture.fresh(s, runtime.device) for s in (0, 1)]
    together = train_together(
        nets, fetch_from(x, y), len(x), options, seeds=[0, 1], runtime=runtime, flip=True
    )
    for a, b in zip(loop, together, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "knobs", [{"precision": "bf16"}, {"compile": "always"}, {"precision": "bf16", "compile": "always"}]
)
def test_reduced_precision_and_compilation(blobs, convnet, recipe, knobs):
    runtime = on_gpu(**knobs)
    x, y = data(runtime)
    net = convnet(blobs).fresh(0, runtime.device)
    compiled = knobs.get("compile") == "always"
    options = recipe(epochs=40, milestones=())
    train(net, fetch_from(x, y), len(x), options, seed=0, runtime=runtime, flip=True, compiled=compiled)
    assert (net(x).argmax(1) == y).float().mean() > 0.9


def test_fresh_networks_are_scored_together(real_set, convnet, protocol):
    runtime, real = on_gpu(), real_set()
    x, y = (t.to(runtime.device) for t in next(real.train.batches(60)))
    for split in (real.train, real.test):
        split._pixels, split.labels = split._pixels.to(runtime.device), split.labels.to(runtime.device)
        split.__dict__.pop("_inputs", None)
    fresh = FreshNetworks(convnet(real), protocol(), x, y, real.test, None, False, runtime)
    scores = dict(fresh.scores({0: 10, 1: 11, 2: 12}, total=3))
    assert sorted(scores) == [0, 1, 2]
    assert all(0 <= v <= 1 for v in scores.values())


OVERRIDES = [
    "runtime.device=cuda",
    "runtime.compile=never",
    "ipc=2",
    "model.width=8",
    "model.norm=batchnorm",
    "teachers.convnet_bn.recipe.epochs=2",
    "teachers.convnet_bn.model.width=8",
    "protocol.recipe.epochs=3",
    "evaluator.num_networks=2",
]


@pytest.mark.parametrize(
    "method",
    [["method=cda", "method.iterations=3"], ["method=infer", "method.iterations=3"], ["method=rded"]],
    ids=["cda", "infer", "rded"],
)
@pytest.mark.parametrize("protocol", ["sre2l-kd-400", "sre2l-kd-400-replay", "infer-400"])
def test_recovery_and_soft_labels_on_gpu(dd_bench, method, protocol):
    done = dd_bench("run", *method, f"protocol={protocol}", "evaluator=controls", *OVERRIDES)
    assert done.code == 0, done.text


def test_views_do_not_depend_on_the_device():
    """Labels computed on one machine are then valid on another."""
    x = torch.rand(12, 3, 16, 16)
    recipe = ViewRecipe(patches=2, pad=2, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)
    views = Views(recipe, 12, seed=0, batch_size=5, flip_allowed=True)
    for here, there in zip(views.epoch(x, 1), views.epoch(x.cuda(), 1), strict=True):
        assert torch.equal(here.index, there.index.cpu())
        torch.testing.assert_close(here.x, there.x.cpu(), rtol=1e-4, atol=1e-4)
        assert here.mixture is not None and there.mixture is not None
        assert torch.equal(here.mixture.partner, there.mixture.partner.cpu())


def test_views_do_not_synchronise():
    x = torch.rand(12, 3, 16, 16, device="cuda")
    recipe = ViewRecipe(patches=2, pad=2, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)
    views = Views(recipe, 12, seed=0, batch_size=5, flip_allowed=True)
    list(views.epoch(x, 0))  # warm-up with one-time allocations
    torch.cuda.set_sync_debug_mode("error")
    try:
        for view in views.epoch(x, 1):
            view.x.sum()
    finally:
        torch.cuda.set_sync_debug_mode("default")
