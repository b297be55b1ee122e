"""Networks in lock step: equality with separate training, constant number of kernels, CUDA graphs, and bfloat16.

Some trainings use the soft labels of a teacher. Their values change with the epoch, or with the views.
"""

import gc
import os
import signal
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dd_bench.models.architecture import Architecture
from dd_bench.models.resnet import ResNet18
from dd_bench.runtime import interruption
from dd_bench.runtime.step_graphs import StepGraphs
from dd_bench.teachers.label_store import LabelStore, StoreHeader, fill
from dd_bench.teachers.labelers import LabelledViews, OnlineTeacher, Replay, StaticSoft
from dd_bench.training import graphed_step
from dd_bench.training.batches import fetch_from
from dd_bench.training.graphed_step import GraphedStep
from dd_bench.training.label_recipe import LabelRecipe, TemperatureSchedule
from dd_bench.training.label_schedule import LabelSchedule
from dd_bench.training.loop import train
from dd_bench.training.resume import Checkpoints
from dd_bench.training.together import LockStepError, train_together
from dd_bench.training.views import ViewRecipe, Views

CPU = torch.device("cpu")
N = 20
DSA = "color_crop_cutout_flip_scale_rotate"
VIEWS = ViewRecipe(patches=2, pad=1, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)
VARIANTS = {
    "plain": {},
    "dsa": {"augment": DSA},
    "idc": {"augment": "flip_color_cutout_crop", "augment_style": "idc"},
    "per_image": {"augment": "crop_scale_rotate_noise", "augment_style": "per_image"},
    "cutmix": {"cutmix": 0.5, "cutmix_beta": 0.3, "cutmix_box": "truncated"},
    "views": {"views": VIEWS},
    "cells": {"views": VIEWS.model_copy(update={"tile": 2, "dsa": DSA})},
    "mixup": {"views": VIEWS.model_copy(update={"mix": "mixup"})},
    "decay of weights": {"decay_filter": "weights_only", "weight_decay": 0.1},
    "reset of adam": {"optimizer": "adamw", "lr": 0.001, "norm": "none"},
    "batchnorm": {"norm": "batchnorm", "batchnorm_momentum": 0.19},
    "steps": {"epochs": 1, "milestones": (), "steps": 8, "schedule": "cosine"},
    "replay": {"labels": "replay"},
    "static": {"labels": "static"},
    "online": {"labels": "online"},
    "changing labels": {"labels": "changing"},
}
LABELS = LabelRecipe(
    kind="online", loss="kl", temperature=2.0, scaled=False, hard_weight=0.1, mix_space="probabilities",
    teacher_mode="eval", pool=1, top=None, source=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(blobs):
    return blobs.train.inputs(torch.arange(N)), blobs.train.labels[:N]


@pytest.fixture
def plan(recipe):
    """Three epochs of three steps; the last batch of an epoch is smaller."""
    return lambda **values: recipe(**{"epochs": 3, "batch_size": 8, "milestones": (2,)} | values)


class RandomTeacher:
    """A linear teacher with random weights, whose logits differ much between images."""

    weight_bytes = 0

    def __init__(self, x):
        self.weight = torch.randn(x[0].numel(), 3, generator=torch.Generator().manual_seed(5)) / 4

    def logits(self, x, mode="eval"):
        return x.flatten(1) @ self.weight


@pytest.fixture(scope="module")
def labelled(data, tmp_path_factory):
    """Return a function that creates the batches of networks with labels of a kind. Labels are stored for 3 epochs."""
    x, y = data
    teacher, stores = RandomTeacher(x), []

    def labeler(kind):
        recipe = LABELS.model_copy(update={"kind": kind})
        if kind == "changing":  # soft, class and soft labels, a falling temperature, and a calibrated one
            phases = (("soft", 1), ("hard", 1), ("soft", 1))
            schedule = TemperatureSchedule(decay=0.7, every=1, minimum=1.0)
            update = {
                "phases": phases,
                "temperature_schedule": schedule,
                "student_temperature": "calibrated_ratio",
            }
            changing = recipe.model_copy(update={**update, "kind": "static"})
            return StaticSoft(changing, y, teacher.logits(x), LabelSchedule(changing, 3))
        if kind == "online":
            return OnlineTeacher(recipe, y, [teacher], forwards=0)
        if kind == "static":
            return StaticSoft(recipe, y, teacher.logits(x).half())
        if not stores:
            folder = tmp_path_factory.mktemp("labels")
            views = VIEWS.model_dump(mode="json")
            header = StoreHeader("these", N, 3, 3, 7, 8, views, ("digest",), ("a", "b", "c"), "eval", None)
            fill(folder, header, x, lambda view: teacher.logits(view.x), lambda done: None)
            stores.append(folder)
        return Replay(recipe, y, LabelStore(stores[0], CPU))

    def labelled(kind, seeds):
        seeds = [7] * len(seeds) if kind == "replay" else seeds
        views = [Views(VIEWS, N, seed=s, batch_size=8, flip_allowed=True) for s in seeds]
        return LabelledViews(x, views, labeler(kind))

    return labelled


@pytest.fixture
def run(data, blobs, convnet, plan, runtime, monkeypatch, labelled):
    """Return a function that trains networks in lock step and returns them."""
    monkeypatch.setattr(graphed_step, "WARM_UP", 1)

    def run(seeds=(11, 12), how=None, fetch=None, norm="instancenorm", **values):
        fetch = fetch or fetch_from(*data)
        how = how or replace(runtime, graphs=StepGraphs(False))
        more = {k: values.pop(k) for k in ("record", "checkpoint") if k in values}
        nets = [convnet(blobs, norm=norm, width=4).fresh(s, CPU) for s in seeds]
        options = {"seeds": list(seeds), "runtime": how, "flip": True, **more}
        if kind := values.pop("labels", None):
            options["labelled_batches"] = labelled(kind, seeds)
        return train_together(nets, fetch, N, plan(**values), **options)

    return run


@pytest.fixture
def run_alone(data, blobs, convnet, plan, runtime, labelled):
    """Return a function that trains one network and returns it, and the distance that its parameters have moved."""

    def run_alone(seed, how=runtime, norm="instancenorm", **values):
        net, start = (convnet(blobs, norm=norm, width=4).fresh(seed, CPU) for _ in range(2))
        kind = values.pop("labels", None)
        options = {"labelled_batches": labelled(kind, [seed])} if kind else {}
        train(net, fetch_from(*data), N, plan(**values), seed=seed, runtime=how, flip=True, **options)
        return net, (parameters(net) - parameters(start)).norm()

    return run_alone


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def same(a, b):
    return all(
        torch.equal(x, y)
        for net, other in zip(a, b, strict=True)
        for x, y in zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    )


class Kernels(TorchDispatchMode):
    """Record each operation with its arguments and its results."""

    VIEWS = ("view", "permute", "transpose", "expand", "select", "slice", "split", "unbind", "detach", "alias", "t.",
             "unsafe_view", "squeeze", "unsqueeze", "empty", "as_strided")  # fmt: skip

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def names(self):
        """Return the operations that are not views, with the shapes of their tensors."""
        names = ((str(f).removeprefix("aten.").lstrip("_"), args) for f, args, _, _ in self.calls)
        return [
            (name, *(tuple(a.shape) for a in args if isinstance(a, torch.Tensor)))
            for name, args in names
            if not name.startswith(self.VIEWS)
        ]

    @torch.no_grad()
    def replay(self):
        """Repeat the operations on the same memory, as a CUDA graph does: numbers from Python are constants."""
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


@pytest.fixture
def without_gc():
    """Without the garbage collector, objects are freed only if they are in no reference cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cpu_graph(graphs):
    """Return a recorder for `GraphedStep` that replays on the CPU. It adds the recorded graphs to `graphs`."""

    def record(run):
        with Kernels() as kernels:
            run()  # unlike a CUDA graph, it is run when it is recorded, so the first replay does nothing
        graphs.append(kernels)
        replays = iter([lambda: None])
        return lambda: next(replays, kernels.replay)()

    return record


class Capture:
    """A recording that cannot end, like `torch.cuda.graph`: it raises another error, and its stream stays current."""

    def __init__(self, streams, stream):
        self.streams, self.stream = streams, stream

    def __enter__(self):
        self.streams.append(self.stream)

    def __exit__(self, *error):
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize("name", VARIANTS)
def test_lock_step_equals_separate_training(run, run_alone, name):
    for seed, net in zip((11, 12), run(**VARIANTS[name]), strict=True):
        alone, moved = run_alone(seed, **VARIANTS[name])
        assert (parameters(alone) - parameters(net)).norm() < 1e-4 * moved, "rounding"
        for key, value in alone.named_buffers():
            torch.testing.assert_close(net.get_buffer(key), value, rtol=1e-4, atol=1e-5)


def test_the_number_of_networks_does_not_matter(run):
    two, one = run(augment=DSA), run(seeds=(12,), augment=DSA)
    torch.testing.assert_close(parameters(two[1]), parameters(one[0]), rtol=1e-5, atol=1e-6)


class TestGraph:
    """A step is a function of fixed memory, so a graph of one step can be replayed for all others."""

    @pytest.mark.parametrize("name", VARIANTS)
    def test_replayed_graph_equals_eager_training(self, run, name):
        graphs = []
        replayed = run(record=cpu_graph(graphs), **VARIANTS[name])
        expected = 3 if name == "changing labels" else 2  # one more for class labels
        assert len(graphs) == expected, "full batches, and the last batch of an epoch"
        assert same(replayed, run(record=lambda step: step, **VARIANTS[name])), (
            "without a graph, in the same memory"
        )
        names = {name.split(".")[0] for graph in graphs for name, *_ in graph.names()}
        waiting = {"local_scalar_dense", "nonzero", "masked_select", "unique2", "equal", "is_nonzero"}
        assert not names & waiting, "a graph cannot wait for the device"

    @pytest.mark.parametrize("name", ["replay", "static", "online", "views", "changing labels"])
    def test_labels_and_views_are_those_of_training_without_fixed_memory(self, run, name):
        """A graph must not repeat the labels of the epoch in which it was recorded."""
        assert same(run(record=cpu_graph([]), **VARIANTS[name]), run(**VARIANTS[name]))

    @pytest.mark.parametrize(
        ("name", "precision"),
        [
            *((name, "fp32") for name in ("dsa", "idc", "per_image", "cutmix", "views", "cells")),
            ("dsa", "bf16"),
        ],
    )
    def test_number_of_kernels_does_not_grow_with_the_networks(self, run, runtime, name, precision):
        counts, how = [], replace(runtime, precision=precision)
        for r in (2, 5):
            graphs = []
            run(seeds=range(r), how=how, record=cpu_graph(graphs), epochs=2, milestones=(), **VARIANTS[name])
            counts.append(len(graphs[0].names()))
        assert counts[0] == counts[1]
        assert name != "dsa" or counts[1] <= {"fp32": 75, "bf16": 95}[precision]

    def test_step_that_cannot_be_recorded(self, run, runtime, monkeypatch):
        notes, tried = [], []
        monkeypatch.setattr(graphed_step.logger, "warning", lambda text, *values: notes.append(text % values))

        def record(step):
            tried.append(step)
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        graphs = StepGraphs(allowed=True)
        how = replace(runtime, graphs=graphs)
        assert same(run(record=record, how=how), run(record=lambda step: step))
        assert len(tried) == 1 and graphs.describe() == "failed: operation not permitted"
        assert ["not run as CUDA graphs" in note for note in notes] == [True], "not for each size of a batch"
        run(record=record, how=how)
        assert len(tried) == len(notes) == 1, "not for the next group of networks"

    def test_number_of_recorded_steps(self, run, runtime):
        graphs = StepGraphs(allowed=True)
        run(record=cpu_graph([]), how=replace(runtime, graphs=graphs))
        assert graphs.describe() == "2 recorded"

    def test_memory_that_does_not_suffice_for_recording(self, run):
        """The error reaches the caller, which trains fewer networks."""

        def record(step):
            with Capture([], 0):
                raise torch.OutOfMemoryError("CUDA out of memory")

        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            run(record=record)

    def test_a_failed_recording_keeps_no_tensors(self, run, without_gc):
        """A smaller group then finds the memory free, without waiting for the garbage collector."""
        alive = []

        def record(step):
            activations = torch.zeros(3)
            alive.append(weakref.ref(activations))
            with Capture([], 0):
                raise torch.OutOfMemoryError("CUDA out of memory")

        failed = False
        try:
            run(record=record)
        except torch.OutOfMemoryError:
            failed = True
        assert failed and alive[0]() is None

    def test_a_training_keeps_no_recordings(self, without_gc):
        """Also if one batch shape had too few steps to be recorded."""
        memory = weakref.WeakSet()

        def record(step):
            memory.add(held := torch.zeros(3))
            return lambda: held.shape

        graphed = GraphedStep(lambda inputs: None, torch.device("cpu"), StepGraphs(allowed=True), record)
        for size in (*[4] * 5, 2):
            graphed({"x": torch.zeros(size)})
        assert len(memory) == 1
        del graphed
        assert not memory

    def test_stream_after_a_failed_recording(self, monkeypatch):
        current = [0]
        monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
        monkeypatch.setattr(torch.cuda, "set_stream", current.append)
        monkeypatch.setattr(torch.cuda, "graph", lambda graph: Capture(current, 7))
        with pytest.raises(RuntimeError, match="previous error"):
            graphed_step.cuda_graph(lambda: current.append(7))
        assert current[-1] == 0 and 7 in current

    @pytest.mark.parametrize("name", ["cutmix", "reset of adam"])
    @pytest.mark.parametrize("step", [1, 5, 8])
    def test_resumed_training_has_the_same_result(self, run, data, tmp_path, name, step):
        """Before and after a step is recorded, and after the reset of the optimiser."""
        whole = run(record=cpu_graph([]), **VARIANTS[name])
        fetched = []

        def fetch(index):
            fetched.append(index)
            if len(fetched) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return data[0][index], data[1][index]

        where = Checkpoints(tmp_path / "x.checkpoint.safetensors")
        with interruption.handled(), pytest.raises(interruption.Interrupted):
            run(record=lambda step: step, fetch=fetch, checkpoint=where, **VARIANTS[name])
        assert same(run(record=cpu_graph([]), checkpoint=where, **VARIANTS[name]), whole)


class TestBfloat16:
    @pytest.mark.parametrize(
        ("norm", "kernel", "inputs"),
        [
            ("instancenorm", "native_group_norm", {torch.float32}),
            ("batchnorm", "native_batch_norm", {torch.bfloat16, torch.float32}),
        ],
    )
    def test_types_of_the_layers(self, run, runtime, norm, kernel, inputs):
        """Convolutions compute in bfloat16. The parameters and statistics of normalisations are float32."""
        graphs = []
        half = replace(runtime, precision="bf16")
        nets = run(how=half, norm=norm, record=cpu_graph(graphs))
        types = {}
        for func, args, _, _ in graphs[0].calls:
            name = str(func).split(".")[1].lstrip("_")
            types.setdefault(name, set()).update(a.dtype for a in args if isinstance(a, torch.Tensor))
        assert types["convolution"] == {torch.bfloat16} and types[kernel] == inputs
        assert {p.dtype for p in nets[0].parameters()} == {torch.float32}

    @pytest.mark.parametrize("norm", ["instancenorm", "batchnorm"])
    def test_similar_to_float32_and_to_autocast(self, run, run_alone, runtime, norm):
        half = replace(runtime, precision="bf16")
        (stacked, _), (full, moved) = run(norm=norm, how=half), run_alone(11, norm=norm)
        autocast, _ = run_alone(11, how=half, norm=norm)
        assert 0 < (parameters(stacked) - parameters(full)).norm() < 0.2 * moved
        assert 0 < (parameters(stacked) - parameters(autocast)).norm() < 0.2 * moved

    def test_batchnorm_of_bfloat16_fails_in_lock_step(self):
        """Without conversion to float32 or joined channels, at least on a CPU."""
        x, mean = torch.randn(2, 4, 3, 8, 8).bfloat16(), torch.zeros(2, 3)
        with pytest.raises(RuntimeError, match="BFloat16"):
            torch.vmap(lambda x, m, v: F.batch_norm(x, m, v, training=True))(x, mean, mean + 1)

    @pytest.mark.slow
    def test_resnet_with_batchnorm(self, blobs, recipe, runtime, data):
        knobs = {"norm": "batchnorm", "downsample": "stride"}
        nets = [Architecture(ResNet18, knobs, blobs.shape, 3, "resnet18_bn").fresh(s, CPU) for s in (0, 1)]
        plan = recipe(epochs=1, milestones=(), batch_size=4)
        options = {"seeds": [0, 1], "runtime": replace(runtime, precision="bf16"), "flip": True}
        train_together(nets, fetch_from(*data), 4, plan, **options)
        assert all(bool(torch.isfinite(t).all()) for net in nets for t in net.state_dict().values())


def test_network_that_vmap_does_not_support(data, recipe, runtime):
    class Waiting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 3)

        def forward(self, x):
            return self.layer(x.flatten(1) * float(x.detach().max()))

    nets = [Waiting(), Waiting()]
    before = [parameters(net) for net in nets]
    with pytest.raises(LockStepError, match="item"):
        train_together(nets, fetch_from(*data), N, recipe(), seeds=[0, 1], runtime=runtime, flip=True)
    assert all(torch.equal(parameters(net), b) for net, b in zip(nets, before, strict=True))
