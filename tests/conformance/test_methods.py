"""Conformance of every `conf/method/*.yaml`; new methods are tested automatically."""

import dataclasses
import inspect
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from dd_bench.api import Method
from dd_bench.data.dataset import RealSet, TensorSplit
from dd_bench.distillation.coreset import build_coreset
from dd_bench.methods._dynamics import ScoreCoreset
from dd_bench.models.mlp import MLP
from dd_bench.models.vit import ViT
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.precision import PRECISION_KEYS

FILES = sorted(Path(str(files("dd_bench.conf") / "method")).glob("*.yaml"))
ALL_CONFIGS = {file.stem: OmegaConf.create(shipped_yaml("method", file.stem)) for file in FILES}
CONFIGS = {  # image methods; graph methods are in test_graph_methods.py
    name: config for name, config in ALL_CONFIGS.items() if "image" in get_class(config._target_).modalities
}
OPTIMISED = [name for name, config in CONFIGS.items() if "iterations" in config]
IPC = 2

SCORES = {  # they differ from EL2N in one function, so most tests of them are slow ones
    name
    for name, config in CONFIGS.items()
    if issubclass(get_class(config._target_), ScoreCoreset) and name not in ("el2n", "cad_prune")
}

each_file = pytest.mark.parametrize("name", list(ALL_CONFIGS))
every_method = pytest.mark.parametrize("name", list(CONFIGS))
each_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SCORES else ()) for name in CONFIGS]
)
each_optimised = pytest.mark.parametrize("name", OPTIMISED)


def bytes_of(syn: SyntheticSet) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for _, t in sorted(syn.tensors().items()))


def constructor_arguments(cls: type) -> set[str]:
    """Keyword arguments of the constructor, including those that `**kwargs` passes to base classes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if not inspect.isfunction(vars(base).get("__init__")):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        assert all(p.default is p.empty for p in keywords), "defaults belong in the YAML"
        assert {p.kind for p in parameters} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
        names |= {p.name for p in keywords}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def test_shipped_methods():
    names = (
        "ast cda datadam datadam_released datm dc dm dsa ftd full herding infer infer_dyn kcenter kmeans mtt ncfm "
        "random rded sre2l sre2l_multi tesla"
    )
    assert set(CONFIGS) >= set(names.split())


@pytest.fixture(scope="session")
def make_method(make_method):
    """Function that builds a method. `neighbours` gets a set of random real images to start from."""

    def make(name, **changes):
        method = make_method(name, **changes)
        if name == "neighbours":
            distill = method.distill

            def with_base(real, ipc, ctx):
                index = real.train.draw(ipc, torch.Generator().manual_seed(0)).flatten()
                ctx.base = build_coreset(real, index)
                return distill(real, ipc, ctx)

            method.distill = with_base
        return method

    return make


@pytest.fixture(scope="module")
def finished():
    """The results of `distilled` by method."""
    return {}


@pytest.fixture
def distilled(make_method, make_ctx, train_blobs, finished):
    """Function that distils `train_blobs`, once for all tests, and returns the method, its context and the set.

    Teachers and experts are trained by `distill`, because `prepare` is not called.
    """

    def run(name):
        if name not in finished:
            ctx, method = make_ctx(), make_method(name)
            finished[name] = method, ctx, method.distill(train_blobs, IPC, ctx)
        return finished[name]

    return run


class Watched(NamedTuple):
    """A real set, the entries of an empty cache after `prepare` and after `distill`, and the synthetic set."""

    real: RealSet
    entries_after_prepare: list[Path]
    entries_after_distill: list[Path]
    syn: SyntheticSet


@pytest.fixture
def watched(make_method, make_ctx, make_blobs, monkeypatch, runs):
    """Function that prepares and distils a set with an empty cache and without test data, once for all tests."""

    def refuse(self):
        raise AssertionError("a method accessed test data")

    def run(name):
        if name not in runs:
            monkeypatch.setattr(RealSet, "test", property(refuse))
            real, ctx, method = make_blobs(), make_ctx(fresh_cache=True), make_method(name)
            view, root = real.train_only(), ctx.cache.root
            method.check_dataset(view, IPC, ctx.architecture)
            method.prepare(view, ctx)
            prepared = sorted(root.glob("*-*"))
            syn = method.distill(view, IPC, ctx)
            runs[name] = Watched(real, prepared, sorted(root.glob("*-*")), syn)
        return runs[name]

    return run


@pytest.fixture(scope="module")
def runs():
    """The results of `watched` by method."""
    return {}


@pytest.fixture(scope="module")
def hydra():
    """Hydra, initialised once for this module."""
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        yield


@each_file
def test_keys_are_the_arguments_of_the_method(name):
    assert (Path(str(files("dd_bench.conf") / "method")) / f"{name}.yaml").read_text().startswith("# ")
    cls = get_class(ALL_CONFIGS[name]._target_)
    assert issubclass(cls, Method)
    assert set(ALL_CONFIGS[name]) - {"_target_"} == constructor_arguments(cls)


@each_file
def test_citation_and_docstrings(name):
    cls = get_class(ALL_CONFIGS[name]._target_)
    assert len(vars(cls).get("citation", "")) > 10, "a citation must not be inherited"
    assert vars(cls).get("__doc__")
    assert inspect.getmodule(cls).__doc__


@each_file
def test_composes_with_smoke_overrides(hydra, name):
    cls = get_class(ALL_CONFIGS[name]._target_)
    smoke = [f"method.{key}={value}" for key, value in cls.smoke.items()]
    config = compose("config", overrides=[f"method={name}", *smoke])
    own = OmegaConf.masked_copy(config.method, [key for key in config.method if key not in PRECISION_KEYS])
    assert isinstance(instantiate(own, _convert_="all"), cls)
    for key, value in cls.smoke.items():
        assert OmegaConf.select(config.method, key) == value


@every_method
def test_set_is_well_formed(distilled, train_blobs, name):
    method, ctx, syn = distilled(name)
    assert method.check_dataset(train_blobs, IPC, ctx.architecture) is None
    syn.check_ipc(IPC)
    n = len(train_blobs.train) if name == "full" else 3 if isinstance(syn, CompensatedSet) else IPC * 3
    assert syn.images.shape == (n, 1, 8, 8)
    assert syn.labels.device == syn.images.device == torch.device("cpu")
    assert not syn.images.requires_grad
    if name != "full" and isinstance(syn, ImageSet) and syn.labels.ndim == 1:
        assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2]  # class-major
    assert syn.class_names == train_blobs.class_names
    assert syn.preprocess.digest == train_blobs.preprocess.digest
    images, labels = syn.materialise(ctx.device)
    assert images.dtype == torch.float32
    assert bool(images.isfinite().all())
    assert len(images) == len(labels)
    restored = type(syn).restore(syn.config(), syn.tensors(), syn.class_names, syn.preprocess)
    assert bytes_of(restored) == bytes_of(syn)


@every_method
def test_set_depends_on_the_seed_only(distilled, make_method, make_ctx, train_blobs, name):
    """One seed gives the same bytes whatever ran before, also with previews of the images.

    Other seeds give other bytes unless `deterministic`.
    """
    real, first = train_blobs, bytes_of(distilled(name)[2])
    torch.rand(7)  # the state of the global generator must not matter
    state = torch.get_rng_state()
    ctx = make_ctx(0, work="restored", log_images_every=1)
    assert bytes_of(make_method(name).distill(real, IPC, ctx)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert bool(list(ctx.loop.shards.parent.glob("preview-*.png"))) == (name in OPTIMISED)
    other = bytes_of(make_method(name).distill(real, IPC, make_ctx(1, work="other")))
    assert (other == first) == get_class(CONFIGS[name]._target_).deterministic


@each_method
def test_distill_builds_nothing_after_prepare(distilled, watched, name):
    """The cost of teachers is then that of `prepare`, and several runs share them. The set has the same bytes."""
    run = watched(name)
    assert run.entries_after_distill == run.entries_after_prepare
    assert bytes_of(run.syn) == bytes_of(distilled(name)[2])


@each_optimised
def test_images_of_every_class_change(distilled, make_method, make_ctx, train_blobs, name):
    start = make_method(name, iterations=0).distill(train_blobs, IPC, make_ctx(work="start"))
    *_, end = distilled(name)
    (before, _), (after, labels) = (syn.materialise(torch.device("cpu")) for syn in (start, end))
    changed = (before != after).flatten(1).any(1)
    assert set(end.labels.argmax(1).tolist() if labels.ndim == 2 else labels[changed].tolist()) == {0, 1, 2}


@each_optimised
def test_loss_is_logged_at_every_step(distilled, name):
    method, ctx, _ = distilled(name)
    shards = len(ctx.rows.rows) // method.iterations
    assert shards == 1 or method.in_shards
    assert [step for step, _ in ctx.rows.rows] == list(range(method.iterations)) * shards
    assert all(loss > 0 for loss in ctx.rows.losses)


@each_optimised
def test_resumed_run_gives_the_same_bytes(make_method, make_ctx, train_blobs, name):
    uninterrupted = bytes_of(
        make_method(name, iterations=4).distill(train_blobs, IPC, make_ctx(work="uninterrupted"))
    )
    for stop in (1, 2, 3):  # the second run resumes the first and is killed too
        ctx = make_ctx(work="killed", killed_at=stop)
        with pytest.raises(KeyboardInterrupt):
            make_method(name, iterations=4).distill(train_blobs, IPC, ctx)
        assert [step for step, _ in ctx.rows.rows] == ([0] if stop == 1 else [stop - 1])
        assert stop == 1 or ctx.rows.started[0] == stop - 1
    ctx = make_ctx(work="killed")
    assert bytes_of(make_method(name, iterations=4).distill(train_blobs, IPC, ctx)) == uninterrupted
    assert ctx.rows.started[0] == 3
    assert [step for step, _ in ctx.rows.rows][:1] == [3]


def test_only_evaluators_have_the_test_split(make_blobs):
    real = make_blobs()
    with pytest.raises(RuntimeError, match="the test split of 'blobs' is reserved for evaluators"):
        _ = real.train_only().test
    assert real.train_only().val is None


@each_method
def test_test_split_is_not_used(watched, name):
    """Neither by `check_dataset` nor by `prepare` nor by `distill`: an access raises an error."""
    assert watched(name).syn.class_names == ("a", "b", "c")


@each_method
def test_real_set_is_not_modified(watched, make_blobs, name):
    real, original = watched(name).real, make_blobs()
    assert isinstance(real.train, TensorSplit)
    index = torch.arange(len(real.train))
    assert torch.equal(real.train.pixels(index), original.train.pixels(index))
    assert torch.equal(real.train.inputs(index), original.train.inputs(index))
    assert torch.equal(real.train.labels, original.train.labels)


@each_method
def test_check_dataset(make_method, make_architecture, make_blobs, name):
    method, architecture = make_method(name), make_architecture()
    for real, ipc in (
        (dataclasses.replace(make_blobs(), modality="graph"), IPC),
        (make_blobs(counts=(20, 3, 9)), 4),
        (make_blobs(), 10_000),
    ):
        reason = method.check_dataset(real.train_only(), ipc, architecture)
        if real.modality == "graph":
            both = "graph" in type(method).modalities
            assert reason is None if both else "distils images, but dataset 'blobs' contains graphs" in reason
        elif reason is not None:
            assert f"ipc={ipc}" in reason and ("'b'" in reason)
        else:
            # the number of images of INFER depends on its teachers, see `check_teachers`
            assert name == "full" or "infer" in name or getattr(method, "init", "noise") == "noise"


@each_method
@pytest.mark.parametrize(
    ("cls", "knobs"),
    [
        pytest.param(None, {"norm": "batchnorm"}, marks=pytest.mark.slow),
        pytest.param(None, {"norm": "none", "depth": 1}, marks=pytest.mark.slow),
        pytest.param(MLP, {"width": 8, "depth": 1}, marks=pytest.mark.slow),
        (
            ViT,
            {"patch": 4, "dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8, "dropout": 0.2, "emb_dropout": 0.2},
        ),
    ],
    ids=["batchnorm", "one layer", "mlp", "vit with dropout"],
)
def test_other_networks(make_method, make_ctx, make_architecture, train_blobs, name, cls, knobs):
    """The pair is either rejected with a reason, or works and resumes with the same bytes, also with dropout."""
    architecture = make_architecture(**({"cls": cls} if cls else {}), **knobs)
    method = make_method(name)
    reason = method.check_dataset(train_blobs, IPC, architecture)
    if reason is not None:
        assert len(reason) > 20
        return
    ctx = make_ctx(architecture=architecture, work="first")
    method.prepare(train_blobs, ctx)
    first = bytes_of(method.distill(train_blobs, IPC, ctx))
    if name in OPTIMISED:
        with pytest.raises(KeyboardInterrupt):
            method.distill(
                train_blobs, IPC, make_ctx(architecture=architecture, work="restored", killed_at=1)
            )
    assert (
        bytes_of(
            make_method(name).distill(train_blobs, IPC, make_ctx(architecture=architecture, work="restored"))
        )
        == first
    )


@each_method
def test_small_class(make_method, make_ctx, make_blobs, name):
    """Real batches are cut to the smallest class, which is noted in the record."""
    method, ctx = make_method(name), make_ctx()
    smallest = IPC * getattr(method, "factor", 1) ** 2 if name == "cim" else IPC  # each image holds several
    real = make_blobs(counts=(12, smallest, 30)).train_only()
    assert method.check_dataset(real, IPC, ctx.architecture) is None
    method.prepare(real, ctx)
    method.distill(real, IPC, ctx)
    cut = [note for note in ctx.notes if "smallest class" in note]
    assert bool(cut) == ("batch_real" in CONFIGS[name])


@each_method
def test_three_channels_and_flips(make_method, make_ctx, make_blobs, make_architecture, name):
    real = make_blobs(counts=(8, 9), shape=(3, 8, 10), flip=True).train_only()
    ctx = make_ctx(architecture=make_architecture(shape=(3, 8, 10), num_classes=2))
    method = make_method(name)
    method.prepare(real, ctx)
    syn = method.distill(real, IPC, ctx)
    assert syn.images.shape[1:] == (3, 8, 10)
