"""Tests of code that differs on a GPU: batched networks, CUDA graphs, precision, determinism, memory, and views.

Run them with `pytest -m gpu tests/integration/test_gpu.py`.
"""

from dataclasses import replace

import pytest
import torch

from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.architecture import Architecture
from dd_bench.models.resnet import ResNet18
from dd_bench.records.record import load_record
from dd_bench.runtime import interruption
from dd_bench.runtime.lock_step import LockStep
from dd_bench.runtime.precision import has_bf16, has_tf32
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.runtime.step_graphs import StepGraphs
from dd_bench.teachers.label_store import LabelStore, StoreHeader, fill
from dd_bench.teachers.labelers import LabelledViews, Replay
from dd_bench.training.batches import fetch_from
from dd_bench.training.label_recipe import LabelRecipe
from dd_bench.training.loop import train
from dd_bench.training.resume import Checkpoints
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


def in_lock_step(architecture, recipe, runtime, seeds=(0, 1), **options):
    """Train networks on `data` and return them."""
    x, y = data(runtime)
    nets = [architecture.fresh(s, runtime.device) for s in seeds]
    return train_together(
        nets, fetch_from(x, y), len(x), recipe, seeds=list(seeds), runtime=runtime, flip=True, **options
    )


def alone(architecture, recipe, runtime, seed=0, **options):
    """Train one network on `data` and return it."""
    x, y = data(runtime)
    net = architecture.fresh(seed, runtime.device)
    return train(net, fetch_from(x, y), len(x), recipe, seed=seed, runtime=runtime, flip=True, **options)


def assert_same(nets, others, **tolerance):
    """Compare parameters and buffers: their bits, or with a tolerance."""
    for net, other in zip(nets, others, strict=True):
        for key, value in net.state_dict().items():
            torch.testing.assert_close(
                value, other.state_dict()[key], msg=key, **(tolerance or {"rtol": 0, "atol": 0})
            )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resnet18_with_batchnorm_in_lock_step(blobs, recipe, precision):
    if precision == "bf16" and not has_bf16(torch.device("cuda")):
        pytest.skip("the GPU has no bfloat16")
    knobs = {"norm": "batchnorm", "downsample": "stride"}
    architecture = Architecture(ResNet18, knobs, blobs.shape, 3, "resnet18_bn")
    runtime, options = on_gpu(precision=precision), recipe(epochs=20, milestones=(), batch_size=16, lr=0.01)
    nets = in_lock_step(architecture, options, runtime)
    assert runtime.graphs.describe() == "1 recorded"
    x, y = data(runtime)
    for net in nets:
        with torch.no_grad():
            assert (net.eval()(x).argmax(1) == y).float().mean() > 0.9
    if precision == "fp32":  # after few steps, before rounding has grown
        short = recipe(epochs=1, milestones=(), batch_size=16, lr=0.01)
        together = in_lock_step(architecture, short, runtime)
        assert_same(together[:1], [alone(architecture, short, runtime)], rtol=1e-2, atol=1e-3)


@pytest.fixture
def stored_labels(tmp_path):
    """Return a function that creates the batches of two networks with stored labels, which differ between epochs."""
    views = ViewRecipe(patches=1, pad=1, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)
    labels = LabelRecipe(
        kind="replay", loss="kl", temperature=1.0, scaled=False, hard_weight=0.0, mix_space="logits",
        teacher_mode="eval", pool=1, top=None, source=None,
    )  # fmt: skip

    def stored_labels(runtime):
        x, y = data(runtime)
        n, mode = len(x), views.model_dump(mode="json")
        header = StoreHeader("these", n, 3, 8, 7, 16, mode, ("digest",), ("a", "b", "c"), "eval", None)
        fill(tmp_path, header, x, lambda view: 9 * view.x.flatten(1)[:, :3], lambda done: None)
        each = Views(views, n, seed=7, batch_size=16, flip_allowed=True)
        return LabelledViews(x, [each, each], Replay(labels, y, LabelStore(tmp_path, runtime.device)))

    return stored_labels


@pytest.mark.parametrize("labels", ["hard", "stored"])
def test_cuda_graph_equals_no_graph(blobs, convnet, recipe, stored_labels, labels):
    """The same kernels give the same bits. Other kernels, without fixed memory, give the same values up to rounding."""
    results, options = [], recipe(epochs=8, batch_size=16, augment="crop_cutout_rotate", milestones=())
    for record in (None, lambda step: step, "never"):
        runtime = on_gpu(deterministic=True, graphs="never" if record == "never" else "auto")
        batches = {"labelled_batches": stored_labels(runtime)} if labels == "stored" else {}
        given = None if record == "never" else record
        results.append(in_lock_step(convnet(blobs), options, runtime, record=given, **batches))
        if record is None:
            assert runtime.graphs.describe() == "1 recorded"
    assert_same(results[0], results[1])
    assert_same(results[0], results[2], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("how", ["alone", "in lock step"])
def test_deterministic_training_has_the_same_bits(blobs, convnet, recipe, how):
    def trained():
        runtime, options = on_gpu(deterministic=True), recipe(epochs=8, augment="crop_cutout_scale_rotate")
        if how == "alone":
            return [alone(convnet(blobs), options, runtime)]
        return in_lock_step(convnet(blobs), options, runtime)

    assert_same(trained(), trained())


@pytest.mark.parametrize("step", [2, 11])
def test_resumed_lock_step_has_the_same_bits(blobs, convnet, recipe, tmp_path, terminate_at, step):
    """Interrupted before and after a graph was recorded; a graph hides later steps of the optimiser from the test."""
    runtime, options = on_gpu(deterministic=True), recipe(epochs=8, batch_size=16, augment="crop_cutout")
    whole = in_lock_step(convnet(blobs), options, runtime)
    terminate_at(step)
    where, eager = Checkpoints(tmp_path / "x.checkpoint.safetensors"), {"record": lambda step: step}
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        in_lock_step(convnet(blobs), options, runtime, checkpoint=where, **eager)
    assert_same(in_lock_step(convnet(blobs), options, runtime, checkpoint=where), whole)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_flags_of_tf32_change_matrix_products(precision):
    """TF32 rounds the inputs to 10 bits of mantissa."""
    if not has_tf32(torch.device("cuda")):
        pytest.skip("the GPU has no TF32")
    device = on_gpu(precision=precision).device
    a, b = (torch.randn(512, 512, generator=torch.Generator().manual_seed(s)).to(device) for s in (0, 1))
    images, weights = a.view(4, 64, 32, 32), b[:, :288].reshape(256, 64, 3, 3)
    products = {"matmul": (a @ b, a.double() @ b.double())}
    convolution = torch.nn.functional.conv2d
    products["conv"] = (convolution(images, weights), convolution(images.double(), weights.double()))
    on_gpu(precision="fp32")
    for name, (result, exact) in products.items():
        error = float((result - exact).norm() / exact.norm())
        assert 1e-4 < error < 1e-2 if precision == "tf32" else error < 1e-5, name


def test_number_of_networks_is_halved_when_memory_ends(real_set, convnet, protocol):
    """The allocator refuses what eight networks need more than two networks."""
    real, seeds = real_set().to(torch.device("cuda")), {n: n for n in range(8)}
    x, y = real.train.inputs(torch.arange(60, device="cuda")), real.train.labels[:60]

    def scores(networks):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        runtime = replace(on_gpu(), lock_step=LockStep(networks), graphs=StepGraphs(True))
        architecture = convnet(real, width=256)
        fresh = FreshNetworks(architecture, protocol(), x, y, real.test, None, False, runtime)
        found = dict(fresh.scores(seeds, total=8))
        return found, torch.cuda.max_memory_reserved(), runtime.lock_step.networks

    expected, least, _ = scores(2)
    _, most, _ = scores(8)
    assert most > 1.5 * least, "the test needs networks that take more memory"
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((least + most) / 2 / whole)
    try:
        found, _, networks = scores(8)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert networks in (1, 2, 4) and found == pytest.approx(expected, abs=0.035)


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
    """They have the scores of a CPU, up to two of sixty images."""
    seeds, found = {0: 10, 1: 11, 2: 12}, []
    for runtime in (on_gpu(), on_gpu(device="cpu", threads=1)):
        real = real_set().to(runtime.device)
        index = torch.arange(60, device=runtime.device)
        x, y = real.train.inputs(index), real.train.labels[index]
        fresh = FreshNetworks(convnet(real), protocol(), x, y, real.test, None, False, runtime)
        found.append(dict(fresh.scores(seeds, total=3)))
    assert sorted(found[0]) == [0, 1, 2]
    assert found[0] == pytest.approx(found[1], abs=0.035)


OVERRIDES = [
    "runtime.device=cuda",
    "runtime.compile=never",
    "ipc=2",
    "model.width=8",
    "model.norm=batchnorm",
    "teachers.convnet_bn.recipe.epochs=2",
    "teachers.convnet_bn.model.width=8",
    "protocol.recipe.epochs=8",
    "evaluator.num_networks=2",
]


@pytest.mark.parametrize(
    ("method", "protocol"),
    [
        (["method=cda", "method.iterations=3"], "sre2l-kd-400"),
        (["method=infer", "method.iterations=3"], "infer-400"),
        (["method=rded"], "sre2l-kd-400-replay"),
    ],
    ids=["cda", "infer", "rded"],
)
def test_recovery_and_soft_labels_on_gpu(dd_bench, tmp_path, method, protocol):
    """Networks in lock step have the scores of networks that are trained one after the other."""
    scores = []
    for together in (2, 1):
        out = tmp_path / f"together{together}"
        how = [
            f"out={out}",
            f"runtime.together={together}",
            "runtime.precision=fp32",
            "runtime.deterministic=true",
        ]
        done = dd_bench("run", *method, f"protocol={protocol}", "evaluator=controls", *OVERRIDES, *how)
        assert done.code == 0, done.text
        (path,) = (out / "records").glob("*.json")
        record = load_record(path)
        scores.append({(s.network, s.metric): s.value for s in record.scores})
        graphs = None if record.environment is None else record.environment.graphs
        assert (graphs is not None and graphs.endswith("recorded")) == (together == 2)
    assert scores[0] == pytest.approx(scores[1], abs=0.03)


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


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_views_do_not_synchronise():
    x = torch.rand(12, 3, 16, 16, device="cuda")
    recipe = ViewRecipe(patches=2, pad=2, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)
    views = Views(recipe, 12, seed=0, batch_size=5, flip_allowed=True)
    list(views.epoch(x, 0))  # warm-up with one-time allocations
    try:
        torch.cuda.set_sync_debug_mode("error")
        for view in views.epoch(x, 1):
            view.x.sum()
    finally:
        torch.cuda.set_sync_debug_mode("default")
