"""What all tests share: one thread, a tiny real set, a recipe, and the command in this process or in another."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

torch.set_num_threads(1)  # before dd_bench.runtime remembers torch's own choice

from dd_bench.architecture import Architecture
from dd_bench.data.motifs import motifs as make_motifs
from dd_bench.graphs import GraphShape
from dd_bench.models import gnn
from dd_bench.models.convnet import ConvNet
from dd_bench.preprocess import Normalise
from dd_bench.protocol import Protocol, Recipe
from dd_bench.real import RealSet, tensor_set
from dd_bench.runtime import Runtime

CPU = torch.device("cpu")

# A run of a second: overrides of `dataset=digits`, and those of an iterative method beside them.
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
    """A real set of 8x8 images: each class is a random pattern under Gaussian noise, easy to tell apart."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.rand(classes, channels, 8, 8, generator=draw) * 140 + 58

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(classes).repeat(count)
        pixels = patterns[labels] + noise * torch.randn(len(labels), channels, 8, 8, generator=draw)
        return pixels.round().clamp(0, 255).to(torch.uint8), labels

    return tensor_set(
        "blobs",
        split(per_class),
        split(20),
        class_names=names[:classes],
        preprocess=preprocess or Normalise([0.5] * channels, [0.25] * channels),
        flip=False,
        licence="none",
        citation="nobody",
        device=CPU,
        val_fraction=val_fraction,
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
    """A ConvNet of width 8 for a real set, with other knobs on request."""

    def make(real: RealSet, **knobs: Any) -> Architecture:
        small = {"depth": 2, "width": 8, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
        return Architecture(ConvNet, small | knobs, real.shape, real.num_classes, "convnet")

    return make


@pytest.fixture(scope="session")
def motifs() -> RealSet:
    """Forty graphs of eleven nodes, with a house or a cycle."""
    return make_motifs(graphs=40, base=6, node_labels="degree", seed=0, test=0.2, val=0.2, device=CPU)


@pytest.fixture(scope="session")
def make_gnn() -> Callable[..., Any]:
    """Builds a small network of graphs, by the name of its YAML."""

    def make(model: str, shape: GraphShape, num_classes: int = 2, **knobs: Any) -> Any:
        small = {"layers": 2, "hidden": 8, "dropout": 0.0, "norm": "none", "readout": "sum", "jk": "last"}
        kinds = {"gin": gnn.GIN, "gat": gnn.GAT, "sage": gnn.SAGE, "gcn": gnn.GCN}
        return Architecture(kinds[model], small | knobs, shape, num_classes, model).fresh(0, CPU)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def gin() -> Callable[..., Architecture]:
    """A GIN of width 8 for a real set of graphs, with other knobs on request."""

    def make(real: RealSet, **knobs: Any) -> Architecture:
        small = {"layers": 2, "hidden": 8, "dropout": 0.0, "norm": "none", "readout": "sum", "jk": "last"}
        return Architecture(gnn.GIN, small | knobs, real.shape, real.num_classes, "gin")

    return make


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """A recipe of five epochs of plain SGD, with other values on request."""

    def make(**values: Any) -> Recipe:
        plain: dict[str, Any] = {
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
            "dialect": False,
            "align_corners": False,
            "cutmix": 0.0,
            "cutmix_beta": 1.0,
        }
        return Recipe(**plain | values)

    return make


@pytest.fixture(scope="session")
def protocol(recipe) -> Callable[..., Protocol]:
    """A protocol that selects the last step, with other values on request; `recipe.` keys go to its recipe."""

    def make(**values: Any) -> Protocol:
        plain = {
            "name": "test",
            "version": 1,
            "selection": "last",
            "eval_every": 0,
            "eval_from": 0,
            "lr_grid": (),
        }
        return Protocol(**{**plain, "recipe": recipe(), **values})

    return make


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """CPU, float32, one after the other, nothing compiled."""
    return Runtime(CPU, autocast=False, compile_after=None, workers=1, spread_after=0, vmap=False)


@dataclass
class Outcome:
    """What the command did: its exit status and all it printed."""

    code: int
    text: str


@pytest.fixture
def dd_bench(monkeypatch, capfd, tmp_path) -> Callable[..., Outcome]:
    """Runs `dd-bench ...` in this process, with `out` in `runs` of the test's folder."""
    from hydra.core.global_hydra import GlobalHydra

    from dd_bench import cli

    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dd-bench", *arguments])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
            for (
                handler
            ) in root.handlers:  # Hydra's: a file in the run's folder, and a stream that capfd closes
                if handler not in handlers:
                    handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
        printed = capfd.readouterr()
        return Outcome(code or 0, printed.out + printed.err)

    return run


@pytest.fixture
def job(tmp_path) -> Callable[..., Any]:
    """Calls `dd_bench.run.run` on a composed configuration: what the command does, without Hydra's own second."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from dd_bench.run import run

    def call(*overrides: str) -> Any:
        GlobalHydra.instance().clear()
        with initialize_config_module("dd_bench.conf", version_base="1.3"):
            cfg = compose(
                "config", overrides=[f"out={tmp_path / 'runs'}", *overrides], return_hydra_config=True
            )
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.set_struct(cfg, True)
        return run(cfg)

    yield call
    HydraConfig.instance().cfg = None


@pytest.fixture
def start(tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `dd-bench ...` as a process of its own; what is still alive after the test is killed."""
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        with (tmp_path / "printed.txt").open("a") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dd_bench", *arguments],
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=file,
                text=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def small() -> Callable[..., list[str]]:
    """The overrides that make a run take a second: `small("random")`, `small("dm", "ipc=2")`."""

    def overrides(method: str, *more: str) -> list[str]:
        return [f"method={method}", *SMALL, *(SHORT if method in ("dm", "datadam") else []), *more]

    return overrides
