"""A tiny real set, a small network and contexts: what every method's tests stand on."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from dd_bench.architecture import Architecture
from dd_bench.base import Context
from dd_bench.cache import Cache
from dd_bench.loggers import Logger
from dd_bench.models.convnet import ConvNet
from dd_bench.preprocess import Normalise
from dd_bench.real import tensor_set
from dd_bench.steps import OuterLoop
from dd_bench.zoo import TeacherConfig, TeacherSpec

CPU = torch.device("cpu")


class Rows(Logger):
    """Keeps what is logged; raises KeyboardInterrupt at the step `killed_at`, before it is checkpointed."""

    def __init__(self, killed_at=None):
        self.rows, self.started, self.killed_at = [], [], killed_at

    def resume(self, *what):
        self.started.append(what[-1])

    @property
    def started_at(self):
        return self.started[-1] if self.started else None

    def log(self, *what):
        step, values = what[-2:]
        if step == self.killed_at:
            raise KeyboardInterrupt
        self.rows.append((step, values))

    @property
    def losses(self):
        return [values["loss"] for _, values in self.rows]


@pytest.fixture(scope="session")
def make_blobs():
    """Builds a real set: noisy images about a pattern of their class, `counts` training images of each."""

    def make(counts=(20, 17, 22), shape=(1, 8, 8), flip=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        k = len(counts)
        patterns = torch.rand(k, *shape, generator=generator)

        def split(sizes):
            labels = torch.repeat_interleave(torch.arange(k), torch.tensor(sizes))
            labels = labels[torch.randperm(len(labels), generator=generator)]
            noise = torch.randn(len(labels), *shape, generator=generator)
            return ((0.7 * patterns[labels] + 0.15 + 0.1 * noise).clamp(0, 1) * 255).to(torch.uint8), labels

        return tensor_set(
            "blobs",
            split(counts),
            split([8] * k),
            class_names=tuple("abcdefgh"[:k]),
            preprocess=Normalise([0.5] * shape[0], [0.25] * shape[0]),
            flip=flip,
            licence="none",
            citation="none",
            device=CPU,
            val_fraction=0.0,
        )

    return make


@pytest.fixture(scope="session")
def blobs(make_blobs):
    """Three unequal classes, and no test split: what a method sees."""
    return make_blobs().train_only()


@pytest.fixture(scope="session")
def make_architecture():
    """Binds a small ConvNet, or another network, to a shape."""

    def make(cls=ConvNet, shape=(1, 8, 8), num_classes=3, **knobs):
        if cls is ConvNet:
            small = {"depth": 2, "width": 8, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
            knobs = small | knobs
        return Architecture(cls, knobs, shape, num_classes, cls.__name__.lower())

    return make


@pytest.fixture
def make_net(make_architecture):
    """Builds a small ConvNet in float64, in train mode."""

    def make(seed=0, **knobs):
        return make_architecture(**knobs).fresh(seed, CPU).double()

    return make


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """One cache for the session: teachers are trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_teacher(make_architecture, recipe):
    """Builds the specification of a small ConvNet with BatchNorm that is trained for three epochs."""

    def make(name="tiny", shape=(1, 8, 8), num_classes=3, epochs=3, keep=(), epoch=None, **knobs):
        architecture = make_architecture(
            shape=shape, num_classes=num_classes, **{"norm": "batchnorm"} | knobs
        )
        plain = recipe(epochs=epochs, milestones=(), lr=0.1)
        config = TeacherConfig(weights="squeeze", classes=None, keep=keep, epoch=epoch, recipe=plain)
        return TeacherSpec(name, architecture, config)

    return make


@pytest.fixture
def make_ctx(tmp_path, cache_folder, make_architecture, make_teacher, runtime, protocol):
    """Builds a context; a `work` folder is a run, checkpointed after every step. `ctx.rows` is its log."""

    def make(seed=0, work="run", architecture=None, killed_at=None, fresh_cache=False, teachers=None):
        rows = Rows(killed_at)
        network = architecture or make_architecture()
        like = {"activation": network.knobs["activation"]} if "activation" in network.knobs else {}
        ctx = Context(
            seed,
            runtime,
            network,
            Cache(tmp_path / work / "cache" if fresh_cache else cache_folder),
            OuterLoop(tmp_path / work, rows, log_every=1, checkpoint_seconds=0.0),
            protocol(),
            teachers=(make_teacher(shape=network.shape, num_classes=network.num_classes, **like),)
            if teachers is None
            else teachers,
        )
        ctx.rows = rows
        return ctx

    return make


@pytest.fixture(scope="session")
def make_method():
    """Builds the method of `conf/method/<name>.yaml`, under its `smoke` overrides and `changes`."""

    def make(name, smoke=True, **changes):
        config = OmegaConf.load(Path(str(files("dd_bench.conf") / "method" / f"{name}.yaml")))
        OmegaConf.set_struct(config, True)
        cls = get_class(config._target_)
        for key, value in ((cls.smoke if smoke else {}) | changes).items():
            OmegaConf.update(config, key, value)
        knobs = OmegaConf.to_container(config)
        return cls(**{key: value for key, value in knobs.items() if key != "_target_"})

    return make
