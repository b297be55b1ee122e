"""Launches and waits per step of every method, protocol and evaluator, counted on a simulated device.

    python benchmarks/launches.py                        # all cases, in about three minutes
    python benchmarks/launches.py methods.dm protocols   # some cases

A launch is an operation that computes on the device; a wait is a point where Python waits for the device, named by its
line in dd_bench. `simulated_device.py` describes what the device can show. The counts are printed and written to
`benchmarks/results/launches.json`, with which `tests/device/test_counts.py` compares them. They do not depend on the
machine, but launches depend on the version of torch.

Cases: a method is counted in its outer loop, without the first step. A protocol is counted in the training of fresh
networks, from one step of the optimiser to the next; an evaluator in the same way, and also outside the training. As on
CUDA, fresh networks are trained in lock step, up to 20 at once. A single network is trained alone. `neighbours` is left
out, because it needs a set. Cases of nodes (`node_cases`) are not in the file: a test requires that they do not wait.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest import mock

import report
import torch
from hydra.utils import get_class
from simulated_device import DEVICE, Counts, simulated_device
from torch.optim.optimizer import register_optimizer_step_post_hook

from dd_bench.data.dataset import RealSet
from dd_bench.pipeline.compose import RunConfig, load_real_set
from dd_bench.pipeline.measure import _score
from dd_bench.pipeline.run import distill, run
from dd_bench.records.config_diff import shipped_config, shipped_yaml
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).parent / "results" / "launches.json"
STEPS = 4  # of each loop; the first is not counted

SMALL = (
    "runtime=one_thread", f"runtime.device={DEVICE.type}", "runtime.precision=fp32", "runtime.compile=never",
    "runtime.together=20", "num_sets=1",
)  # fmt: skip
IMAGES = ("model.width=8", "ipc=2")
GRAPHS = ("dataset=motifs", "dataset.graphs=60", "dataset.base=6", "ipc=2")
NODES = (
    "dataset=sbm", "dataset.nodes=120", "dataset.classes=3", "dataset.features=8", "dataset.train=10", "dataset.val=30",
    "model.hidden=8", "ipc=2",
)  # fmt: skip
TEACHERS = (
    "model.norm=batchnorm", "teachers.convnet_bn.recipe.epochs=1", "teachers.convnet_bn.recipe.batch_size=512",
    "teachers.convnet_bn.model.width=8",
)  # fmt: skip
LARGE_BATCHES = {"experts.recipe.batch_size": 512, "experts.recipe.epochs": 1, "teacher.epochs": 1}


def names(group: str, nodes: bool = False) -> list[str]:
    """Return the names of the YAML files of a group: with `nodes` those for nodes only, and otherwise all others."""
    found = sorted(file.name.removesuffix(".yaml") for file in (files("dd_bench.conf") / group).iterdir()
                   if file.name.endswith(".yaml"))  # fmt: skip
    return [name for name in found if only_for_nodes(group, name) == nodes and name != "neighbours"]


def only_for_nodes(group: str, name: str) -> bool:
    """Return whether a method, protocol or evaluator can only be used with a graph of nodes with labels."""
    if group == "method":
        return get_class(shipped_yaml(group, name)["_target_"]).modalities == ("node",)
    return name.split("-")[0] == "node"


def method_overrides(name: str) -> list[str]:
    """Return the overrides of a short run of a method."""
    yaml = shipped_yaml("method", name)
    cls = get_class(yaml["_target_"])
    values = dict(cls.smoke)
    values |= {key: value for key, value in LARGE_BATCHES.items() if key in values}
    if "iterations" in yaml:
        values["iterations"] = STEPS
    if only_for_nodes("method", name) and "batch_real" in yaml:
        values["batch_real"] = 4  # fewer than the training nodes of a class, so that batches are drawn
    if "steps" in yaml.get("teacher", {}):
        values["teacher.steps"] = max(STEPS, yaml.get("points") or 0)
    first = {"graph": GRAPHS, "node": NODES, "image": (*IMAGES, *(TEACHERS if cls.uses_teachers else ()))}
    kind = first["image" if "image" in cls.modalities else cls.modalities[0]]
    model = ["model=gcn"] if name == "doscond" else []
    return [f"method={name}", *kind, *model, *(f"method.{key}={value}" for key, value in values.items())]


def protocol_overrides(name: str, networks: int = 2) -> list[str]:
    """Return the overrides of a short run of a protocol on a random set."""
    protocol = shipped_config("protocol", name)
    networks = protocol.get("keep") or networks  # at least as many are required
    base = [f"protocol={name}", f"evaluator.num_networks={networks}"]
    if name in ("graph-500", "mirage-legacy"):
        length = "steps" if name == "graph-500" else "epochs"
        return [
            "method=random_graphs",
            *GRAPHS,
            "evaluator=graph",
            *base,
            f"protocol.recipe.{length}={STEPS}",
        ]
    milestones = "[2]" if protocol["recipe"]["milestones"] else "[]"
    if name.startswith("node-"):
        length = "epochs" if protocol["selection"] == "best_on_val" else "steps"
        return [
            "method=random_nodes",
            *NODES,
            "evaluator=node",
            *base,
            f"protocol.recipe.{length}={STEPS}",
            f"protocol.recipe.milestones={milestones}",
        ]
    tested = ["protocol.eval_every=2", "protocol.eval_from=0"] if protocol["selection"] != "last" else []
    recipe = protocol["recipe"]
    changed = ["protocol.recipe.epochs_by_size=[]"] if recipe.get("epochs_by_size") else []
    if (recipe.get("views") or {}).get("colour"):
        changed.append("protocol.recipe.views.colour=null")  # digits have no colours
    return [
        "method=random", *IMAGES, *base, *(TEACHERS if {"labels", "probe"} & set(protocol) else ()), *tested, *changed,
        f"protocol.recipe.epochs={STEPS}", f"protocol.recipe.milestones={milestones}",
    ]  # fmt: skip


def evaluator_overrides(name: str) -> list[str]:
    """Return the overrides of a short run of an evaluator on a random set."""
    if name in ("graph", "node"):
        return protocol_overrides({"graph": "graph-500", "node": "node-last"}[name])
    protocol = {"nas": "nas-200", "controls": "fkd-300", "linear_probe": "probe-1000"}.get(name, "dsa-1000")
    cls = get_class(shipped_yaml("evaluator", name)["_target_"])
    base = [x for x in protocol_overrides(protocol) if not x.startswith("evaluator")]
    more = {"continual": ["evaluator.steps=5"], "nas": ["dataset.val_fraction=0.1"]}.get(name, [])
    return [*base, f"evaluator={name}", *cls.smoke, *more]


def cases() -> dict[str, dict[str, Callable[[], list[str]]]]:
    """Return functions that give the overrides of every case, by kind and name."""
    on_val = ["dataset.val_fraction=0.1", "protocol.selection=best_on_val", "protocol.eval_every=2"]
    folder = [
        f"dataset{x}" for x in ("=image_folder", ".name=pets", ".size=16", ".citation=none", ".licence=none")
    ]
    statistics = ["dataset.mean=[0,0,0]", "dataset.std=[1,1,1]"]
    return {
        "methods": {name: partial(method_overrides, name) for name in names("method")},
        "protocols": {
            **{name: partial(protocol_overrides, name) for name in names("protocol")},
            "dsa-1000 best_on_val": lambda: [*protocol_overrides("dsa-1000"), *on_val],
            "dsa-1000 lr_grid": lambda: [
                *protocol_overrides("dsa-1000"), *on_val, "protocol.lr_grid=[0.1,0.01]",
            ],
        },
        "networks": {
            **{
                f"{name} x{r}": partial(protocol_overrides, name, r)
                for name in ("dc-300", "dsa-1000") for r in (1, 5, 20)
            },
            **{
                f"dsa-1000 x{r} bf16": lambda r=r: [  # type: ignore[misc]
                    *protocol_overrides("dsa-1000", r), "runtime.precision=bf16",
                ]
                for r in (5, 20)
            },
        },
        "evaluators": {name: partial(evaluator_overrides, name) for name in names("evaluator")},
        "plain loop": {"dsa-1000": lambda: ["dataset=digits"]},
        "data": {
            "digits": lambda: ["dataset=digits"],
            "motifs": lambda: [x for x in GRAPHS if x.startswith("dataset")],
            "image_folder": lambda: [*folder, "dataset.stream=false"],
            "image_folder streamed": lambda: [*folder, "dataset.stream=true", *statistics],
        },
    }  # fmt: skip


def node_cases() -> dict[tuple[str, str], Callable[[], list[str]]]:
    """Return the cases of methods, protocols and evaluators for nodes, and of their data, by kind and name."""
    return {
        **{("methods", name): partial(method_overrides, name) for name in names("method", nodes=True)},
        **{("protocols", name): partial(protocol_overrides, name) for name in names("protocol", nodes=True)},
        **{
            ("evaluators", name): partial(evaluator_overrides, name)
            for name in names("evaluator", nodes=True)
        },
        ("data", "sbm"): lambda: [x for x in NODES if x.startswith("dataset")],
    }


class Recorder:
    """What each step of the outer loop and of the training of fresh networks adds to `counts`."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.outer: list[Counts] = []
        self.training: list[Counts] = []
        self.evaluation = Counts()
        self._last: dict[torch.optim.Optimizer, Counts | None] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the end of the context."""
        steps, recorder = OuterLoop.steps, self

        def counted_steps(loop: OuterLoop, *args: Any, **kwargs: Any) -> Iterator[int]:
            for step in steps(loop, *args, **kwargs):
                before = recorder.counts.snapshot()
                yield step
                if step > 0:
                    recorder.outer.append(recorder.counts - before)

        def counted_score(*args: Any, **kwargs: Any) -> None:
            before = recorder.counts.snapshot()
            _score(*args, **kwargs)
            recorder.evaluation = recorder.counts - before

        hook = register_optimizer_step_post_hook(self._after_step)
        with (
            mock.patch.object(OuterLoop, "steps", counted_steps),
            mock.patch("dd_bench.pipeline.measure._score", counted_score),
        ):
            try:
                yield
            finally:
                hook.remove()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._last:
            self._last[optimizer] = None if _trains_for_others() else self.counts.snapshot()
            return
        before = self._last[optimizer]
        if before is not None:
            self.training.append(self.counts - before)
            self._last[optimizer] = self.counts.snapshot()


def _trains_for_others() -> bool:
    """Return whether a teacher is trained or a method distils, instead of a fresh network."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent == ROOT / "dd_bench" / "teachers" or path.is_relative_to(ROOT / "methods"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def per_step(steps: Sequence[Counts]) -> dict[str, Any]:
    """Return the mean launches and waits per step; waits by their place in dd_bench."""
    if not steps:
        return {}
    total = sum(steps, Counts())
    waits: dict[str, float] = {}
    for wait, count in total.waits.items():
        waits[wait.place] = waits.get(wait.place, 0) + count
    return {
        "launches": round(total.launches / len(steps), 2),
        "waits": {place: round(count / len(steps), 2) for place, count in sorted(waits.items())},
    }


def count_data(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the mean counts per batch of network inputs of a dataset. The first batch is not counted."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict("os.environ", DD_BENCH_HOME=folder):
        if "dataset=image_folder" in overrides:
            write_pictures(Path(folder) / "pictures")
            overrides = [*overrides, f"dataset.root={folder}/pictures"]
        real, _ = load_real_set(overrides)
        with simulated_device() as counts:
            split, batches = real.train.to(DEVICE), []
            for index in torch.arange(STEPS * 2, device=DEVICE).split(2):
                before = counts.snapshot()
                split.inputs(index)
                batches.append(counts - before)
    return per_step(batches[1:])


def count_plain_loop(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the counts of a step of the loop written like DD-Ranking's."""
    from ddranking_loop import Sides, shortened

    real = real_set(*overrides)
    with simulated_device() as counts:
        runtime = Runtime(DEVICE, "fp32", None, 1, 0)
        sides = Sides(real.to(DEVICE), runtime, ipc=2, width=8, protocol=shortened("dsa-1000", STEPS))
        recorder = Recorder(counts)
        with recorder.recording():
            sides.plain([0])
    return per_step(recorder.training)


def write_pictures(root: Path) -> None:
    """Write an image folder of two classes with five training images each."""
    from PIL import Image

    for i, (part, name) in enumerate(itertools.product(("train", "val"), ("ant", "bee"))):
        (root / part / name).mkdir(parents=True)
        for n in range(5):
            Image.new("RGB", (20, 24), (10 * n, 50 * i, 100)).save(root / part / name / f"{n}.png")


@cache
def real_set(*overrides: str) -> RealSet:
    """Return a dataset on the CPU. The device would also count its construction."""
    return load_real_set(overrides)[0]


def count(kind: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run a case on the simulated device, and return its counts."""
    if kind in ("data", "plain loop"):
        return (count_data if kind == "data" else count_plain_loop)(overrides)
    real = real_set(*(x for x in overrides if x.startswith("dataset")))
    toolbox = toolbox_on_device() if "evaluator=robustness" in overrides else nullcontext()
    with tempfile.TemporaryDirectory() as folder, simulated_device() as counts, toolbox:
        recorder = Recorder(counts)
        config = RunConfig.of([*SMALL, *overrides, f"out={folder}"], real=real)
        with recorder.recording():
            if kind == "methods":
                distill(config)
                return per_step(recorder.outer)
            record = run(config)
        if record.status != "done":
            raise RuntimeError(f"{' '.join(overrides)}: {record.status}, {record.reason}")
        found = per_step(recorder.training)
        if kind == "evaluators":
            elsewhere = per_step([recorder.evaluation - sum(recorder.training, Counts())])
            found["elsewhere"] = {place: int(n) for place, n in elsewhere["waits"].items()}
        return found


def toolbox_on_device() -> AbstractContextManager[object]:
    """Let the adversarial-robustness-toolbox compute on the simulated device, as it does on a GPU if there is one."""
    from art.estimators.pytorch import PyTorchEstimator

    init = PyTorchEstimator.__init__

    def on_device(self: Any, device_type: str = "gpu", **kwargs: Any) -> None:
        init(self, device_type=device_type, **kwargs)
        if device_type == "gpu":
            self._device = DEVICE

    return mock.patch.object(PyTorchEstimator, "__init__", on_device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="a kind, or KIND.NAME; default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    figures = {
        kind: {name: known.get(kind, {}).get(name, {}) for name in group} for kind, group in cases().items()
    }
    for kind, group in cases().items():
        chosen = [name for name in group if not args.cases or {kind, f"{kind}.{name}"} & set(args.cases)]
        for name in chosen:
            figures[kind][name] = count(kind, group[name]())
            show(f"{kind}.{name}", figures[kind][name])
        if chosen:
            report.write(args.out, figures)  # the counts do not depend on the machine


def show(name: str, counted: dict[str, Any]) -> None:
    """Print the counts of a case, with the lines that wait."""
    if "launches" in counted:
        print(f"{name}: {counted['launches']:g} launches and {sum(counted['waits'].values()):g} waits a step")
    else:
        print(f"{name}: no steps")
    for place, number in counted.get("waits", {}).items():
        print(f"    {number:g}  {place}")
    for place, number in counted.get("elsewhere", {}).items():
        print(f"    {number:g}  outside the training: {place}")


if __name__ == "__main__":
    main()
