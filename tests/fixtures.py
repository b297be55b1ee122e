"""Shared fixtures: one thread, small real sets, recipes, and the command in this or another process."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

torch.set_num_threads(1)  # before dd_bench.runtime.runtime stores torch's default

from dd_bench.api import DistillContext
from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.graphs import GraphShape
from dd_bench.data.motifs import motifs as make_motifs
from dd_bench.data.preprocess import Normalise
from dd_bench.data.sbm import sbm
from dd_bench.models import gnn
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.node_networks import NodeGCN
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.records.tuning import Trial, Tuning
from dd_bench.runtime import workers
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.loggers import Logger
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.runtime import Runtime
from dd_bench.teachers.teacher_spec import TeacherConfig, TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import Recipe

CPU = torch.device("cpu")

# Overrides for a run of one second on `dataset=digits`, and additional ones for an iterative method.
SMALL = ["model.width=8", "ipc=1", "protocol.recipe.epochs=3", "evaluator.num_networks=2", "runtime=plain"]
SHORT = ["method.iterations=3", "method.batch_real=8"]


def make_real(
    classes: int = 3,
    channels: int = 1,
    per_class: int = 40,
    *,
    val_fraction: float = 0.0,
    noise: float = 25.0,
    preprocess: Any = None,
    names: tuple[str, ...] = ("ape", "bee", "cod", "dog"),
) -> RealSet:
    """Return a real set of 8x8 images. Each class is a random pattern with Gaussian noise, easy to classify."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(classes, channels, 8, 8, generator=generator) * 140 + 58

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(classes).repeat(count)
        pixels = patterns[labels] + noise * torch.randn(len(labels), channels, 8, 8, generator=generator)
        return pixels.round().clamp(0, 255).to(torch.uint8), labels

    return tensor_set(
        "blobs",
        split(per_class),
        split(20),
        class_names=names[:classes],
        preprocess=preprocess or Normalise([0.5] * channels, [0.25] * channels),
        flip=False,
        licence="none",
        citation="none",
        device=CPU,
        val_fraction=val_fraction,
    )


# A process has only one fork server, so it must preload the modules of every user. The modules that a short run imports
# take a second, and are imported once instead of by every process.
workers.PRELOAD = (
    *workers.PRELOAD,
    "pytest",
    "dd_bench.cli.main",
    "dd_bench.pipeline.run",
    "sklearn.datasets",
    "dd_bench.data.digits",
    "dd_bench.evaluators.accuracy",
    "dd_bench.methods.dm",
    "hydra._internal.hydra",
    "hydra._internal.config_search_path_impl",
    "torchvision.transforms.functional",
    "PIL.PngImagePlugin",
)


@pytest.fixture(scope="session")
def real_set() -> Callable[..., RealSet]:
    return make_real


@pytest.fixture(scope="session")
def blobs() -> RealSet:
    """Three classes of 40 training and 20 test images, 1x8x8."""
    return make_real()


@pytest.fixture(scope="session")
def blobs3() -> RealSet:
    """Four classes, 3x8x8."""
    return make_real(4, 3)


@pytest.fixture(scope="session")
def convnet() -> Callable[..., Architecture]:
    """Function that returns a ConvNet of width 8 for a real set; keyword arguments override its values."""

    def make(real: RealSet, **knobs: Any) -> Architecture:
        small = {"depth": 2, "width": 8, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
        return Architecture(ConvNet, small | knobs, real.shape, real.num_classes, "convnet")

    return make


@pytest.fixture(scope="session")
def motifs() -> RealSet:
    """Forty graphs of eleven nodes with a house or a cycle."""
    return make_motifs(graphs=40, base=6, node_labels="degree", seed=0, test=0.2, val=0.2, device=CPU)


@pytest.fixture(scope="session")
def blocks() -> RealSet:
    """A graph of 120 nodes of three classes, ten training nodes each."""
    return make_blocks("transductive")


@pytest.fixture(scope="session")
def inductive_blocks() -> RealSet:
    """Three separate graphs of 30 training, 30 validation and 60 test nodes, with the same class means."""
    return make_blocks("inductive")


def make_blocks(setting: str, **changes: Any) -> RealSet:
    """Return a small stochastic block model; keyword arguments override its values."""
    values: dict[str, Any] = {
        "nodes": 120, "classes": 3, "features": 8, "degree_in": 4.0, "degree_out": 1.0, "noise": 1.0, "train": 10,
        "val": 30, "setting": setting, "seed": 0, "device": CPU,
    }  # fmt: skip
    return sbm(**values | changes)


@pytest.fixture(scope="session")
def node_gcn() -> Callable[..., Architecture]:
    """Function that returns a GCN of width 8 for a set of nodes; keyword arguments override its values."""

    def make(real: RealSet, **knobs: Any) -> Architecture:
        small = {"layers": 2, "hidden": 8, "dropout": 0.0}
        return Architecture(NodeGCN, small | knobs, real.shape, real.num_classes, "node_gcn")

    return make


@pytest.fixture(scope="session")
def make_gnn() -> Callable[..., Any]:
    """Function that builds a small graph network by the name of its YAML file."""

    def make(model: str, shape: GraphShape, num_classes: int = 2, **knobs: Any) -> Any:
        small = {"layers": 2, "hidden": 8, "dropout": 0.0, "norm": "none", "readout": "sum", "jk": "last"}
        kinds = {"gin": gnn.GIN, "gat": gnn.GAT, "sage": gnn.SAGE, "gcn": gnn.GCN}
        return Architecture(kinds[model], small | knobs, shape, num_classes, model).fresh(0, CPU)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def gin() -> Callable[..., Architecture]:
    """Function that returns a GIN of width 8 for a set of graphs; keyword arguments override its values."""

    def make(real: RealSet, **knobs: Any) -> Architecture:
        small = {"layers": 2, "hidden": 8, "dropout": 0.0, "norm": "none", "readout": "sum", "jk": "last"}
        return Architecture(gnn.GIN, small | knobs, real.shape, real.num_classes, "gin")

    return make


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """Function that returns a recipe of five epochs of SGD; keyword arguments override its values."""

    def make(**values: Any) -> Recipe:
        defaults: dict[str, Any] = {
            "optimizer": "sgd",
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0005,
            "batch_size": 32,
            "epochs": 5,
            "milestones": (3,),
            "gamma": 0.1,
            "reset_optimizer": True,
            "augment": "none",
            "augment_style": "dsa",
            "align_corners": False,
            "cutmix": 0.0,
            "cutmix_beta": 1.0,
        }
        return Recipe(**defaults | values)

    return make


@pytest.fixture(scope="session")
def protocol(recipe) -> Callable[..., Protocol]:
    """Function that returns a protocol with selection `last`; keyword arguments override its values."""

    def make(**values: Any) -> Protocol:
        defaults = {
            "name": "test",
            "version": 1,
            "selection": "last",
            "eval_every": 0,
            "eval_from": 0,
            "lr_grid": (),
        }
        return Protocol(**{**defaults, "recipe": recipe(), **values})

    return make


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """CPU, float32, one process, no compilation."""
    return Runtime(CPU, precision="fp32", compile_after=None, workers=1, spread_after=0)


@dataclass
class Outcome:
    """Exit status and printed text of a command."""

    code: int
    text: str


@pytest.fixture
def dd_bench(monkeypatch, capfd, tmp_path) -> Callable[..., Outcome]:
    """Function that runs `dd-bench ...` in this process, in the test's folder."""
    from hydra.core.global_hydra import GlobalHydra

    from dd_bench.cli import main

    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dd-bench", *arguments])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        code: Any = 0
        try:
            main.main()
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
            # Hydra's handlers write to a file in the run's folder, and to a stream that capfd closes
            for handler in root.handlers:
                if handler not in handlers:
                    handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
        printed = capfd.readouterr()
        return Outcome(code or 0, printed.out + printed.err)

    return run


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """The messages that are logged during the test, of level INFO and above."""
    texts: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    root, handler = logging.getLogger(), Collect()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield texts
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def terminate_at(monkeypatch) -> Callable[[int], list[None]]:
    """Function that makes step number `n` of SGD send SIGTERM, and returns a list to which each step adds an item."""

    def arrange(n: int) -> list[None]:
        steps: list[None] = []

        def step(self: Any, *arguments: Any, original: Any = torch.optim.SGD.step) -> None:
            steps.append(original(self, *arguments))
            if len(steps) == n:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(torch.optim.SGD, "step", step)
        return steps

    return arrange


@pytest.fixture
def job(tmp_path) -> Callable[..., Any]:
    """Function that composes a configuration and calls `pipeline.run.run`, a second faster than the command."""
    from dd_bench.pipeline.compose import RunConfig
    from dd_bench.pipeline.run import run

    def call(*overrides: str) -> Any:
        return run(RunConfig.of([f"out={tmp_path / 'runs'}", *overrides]))

    return call


class Forked:
    """Like `subprocess.Popen`, for a process that executes `code` with `names` as globals.

    The process is forked from a server that has already imported torch and the modules of a command. This is several
    seconds faster than a new interpreter. The output is appended to the file `printed`.
    """

    _CONTEXT = multiprocessing.get_context("forkserver")
    _REDIRECT = "import os\nfor _s in (1, 2): os.dup2(os.open(printed, os.O_WRONLY | os.O_APPEND), _s)\n"

    def __init__(self, code: str, printed: Path, **names: Any):
        printed.touch()
        self._CONTEXT.set_forkserver_preload([*workers.PRELOAD])
        names["printed"] = str(printed)
        self._process = self._CONTEXT.Process(target=exec, args=(self._REDIRECT + code, names))
        with pytest.MonkeyPatch.context() as patch:  # the first start also starts the server
            patch.setenv("OMP_NUM_THREADS", "1")
            self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode


@pytest.fixture
def fork(tmp_path) -> Iterator[Callable[..., Forked]]:
    """Function that executes code in a separate process, which is killed at the end of the test.

    The output is appended to `printed.txt` in the test's folder.
    """
    started = []

    def run(code: str, **names: Any) -> Forked:
        started.append(Forked(code, tmp_path / "printed.txt", **names))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def start(tmp_path, fork) -> Callable[..., Forked]:
    """Function that starts `dd-bench ...` in a separate process, which executes the code `first` before."""
    command = (
        "import os, runpy, sys; os.chdir(folder); sys.argv = ['dd-bench', *arguments]\n"
        "runpy.run_module('dd_bench', run_name='__main__', alter_sys=True)"
    )

    def run(*arguments: str, first: str = "") -> Forked:
        return fork(first + command, folder=str(tmp_path), arguments=arguments)

    return run


@pytest.fixture(scope="session")
def small() -> Callable[..., list[str]]:
    """Function that returns the overrides of a short run, e.g. `small("random")` or `small("dm", "ipc=2")`."""

    def overrides(method: str, *more: str) -> list[str]:
        return [f"method={method}", *SMALL, *(SHORT if method in ("dm", "datadam") else []), *more]

    return overrides


class Rows(Logger):
    """Store the logged values and raise KeyboardInterrupt at the step `killed_at`, before its checkpoint."""

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
    """Function that builds a real set of noisy images of class patterns, with `counts` training images by class."""

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
def train_blobs(make_blobs):
    """Three classes of different sizes without a test split, as passed to methods."""
    return make_blobs().train_only()


@pytest.fixture(scope="session")
def make_architecture():
    """Function that returns the architecture of a small ConvNet, or of another network."""

    def make(cls=ConvNet, shape=(1, 8, 8), num_classes=3, **knobs):
        if cls is ConvNet:
            small = {"depth": 2, "width": 8, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
            knobs = small | knobs
        return Architecture(cls, knobs, shape, num_classes, cls.__name__.lower())

    return make


@pytest.fixture
def make_net(make_architecture):
    """Function that builds a small ConvNet in float64 in training mode."""

    def make(seed=0, **knobs):
        return make_architecture(**knobs).fresh(seed, CPU).double()

    return make


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """Cache folder of the session, so that teachers are trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_teacher(make_architecture, recipe):
    """Function that returns the specification of a small ConvNet teacher with BatchNorm, trained for three epochs."""

    def make(name="tiny", shape=(1, 8, 8), num_classes=3, epochs=3, keep=(), epoch=None, **knobs):
        architecture = make_architecture(
            shape=shape, num_classes=num_classes, **{"norm": "batchnorm"} | knobs
        )
        short = recipe(epochs=epochs, milestones=(), lr=0.1)
        config = TeacherConfig(weights="squeeze", classes=None, keep=keep, epoch=epoch, recipe=short)
        return TeacherSpec(name, architecture, config)

    return make


@pytest.fixture
def make_ctx(tmp_path, cache_folder, make_architecture, make_teacher, runtime):
    """Function that builds a context, checkpointed every step; `work` names the run, `ctx.rows` is its log."""

    def make(
        seed=0,
        work="run",
        architecture=None,
        killed_at=None,
        fresh_cache=False,
        teachers=None,
        log_images_every=None,
        base=None,
    ):
        rows = Rows(killed_at)
        network = architecture or make_architecture()
        like = {"activation": network.knobs["activation"]} if "activation" in network.knobs else {}
        ctx = DistillContext(
            seed=seed,
            runtime=runtime,
            architecture=network,
            cache=Cache(tmp_path / work / "cache" if fresh_cache else cache_folder),
            loop=OuterLoop(
                tmp_path / work,
                rows,
                log_every=1,
                checkpoint_seconds=0.0,
                log_images_every=log_images_every,
            ),
            teachers=(make_teacher(shape=network.shape, num_classes=network.num_classes, **like),)
            if teachers is None
            else teachers,
            base=base,
            ipc=2,
        )
        ctx.rows = rows
        return ctx

    return make


@pytest.fixture(scope="session")
def make_method():
    """Function that builds the method of `conf/method/<name>.yaml` with its `smoke` overrides and `changes`."""

    def make(name, smoke=True, **changes):
        config = OmegaConf.create(shipped_yaml("method", name))
        OmegaConf.set_struct(config, True)
        cls = get_class(config._target_)
        for key, value in ((cls.smoke if smoke else {}) | changes).items():
            OmegaConf.update(config, key, value)
        knobs = OmegaConf.to_container(config)
        return cls(**{key: value for key, value in knobs.items() if key != "_target_"})

    return make


@pytest.fixture(scope="session")
def make_tuning() -> Callable[..., Tuning]:
    """Make a search over two keys, whose second trial is the best."""

    def make(**changes) -> Tuning:
        done = {"status": "done", "std": 0.1, "networks": 2}
        trials = [
            Trial(number=0, params={"method.lr": 0.1, "method.init": "real"}, value=0.5, **done),
            Trial(number=1, params={"method.lr": 1, "method.init": "real"}, value=0.7, **done),
            Trial(
                number=2, params={"method.lr": 9.5, "method.init": "noise"}, status="diverged", reason="nan"
            ),
        ]
        fields = {
            "method": "dm", "dataset": "digits", "model": "convnet", "ipc": 1, "protocol": "quick",
            "metric": "accuracy", "split": "validation", "val_fraction": 0.1, "real_digest": "d",
            "fixed": ["method=dm", "ipc=1"],
            "space": {"method.lr": "tag(log,interval(0.1,10))", "method.init": "real,noise"},
            "sampler": "tpe", "seed": 0, "optuna": "4.0", "trials": trials, "chosen": 1,
        }  # fmt: skip
        return Tuning.model_validate(fields | changes)

    return make
