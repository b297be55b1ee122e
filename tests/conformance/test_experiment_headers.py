"""The header of an experiment agrees with its values.

Rules for the comments before `defaults`:

- `NAME VALUE here` and `KEY: VALUE as in ...` state the value that the experiment has.
- `KEY=VALUE`, outside the command, is an alternative: the key exists, and the experiment has another value.
- The numbers of experts, epochs, patches, natural images and compensators follow from the values.
- `# chosen     CHOICE: ...` says how the hyper-parameters were chosen, in the words of a board.
- Every command, and every alternative to its overrides, passes the checks of keys and values that a run makes.
"""

import math
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from dd_bench.cli.sweep_overrides import expand
from dd_bench.leaderboards.core.hyperparameters import origin
from dd_bench.methods.infer import INFER
from dd_bench.pipeline.compose import RunConfig, check_groups
from dd_bench.pipeline.missing_keys import main_values
from dd_bench.records.config_diff import leaves, shipped_config, shipped_yaml

from .test_configs import experiment_parameters

FOLDER = Path(str(files("dd_bench.conf"))) / "experiment"
ALL = sorted(FOLDER.rglob("*.yaml"))
PAPER = [path for path in ALL if (FOLDER / "paper") in path.parents]
CLASSES = {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200, "imagenet1k": 1000}
KEY = r"[a-z_0-9]+(?:\.[a-z_0-9]+)+"
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
WORDS = {"a": 1, "four": 4}


def choice(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


@cache
def groups(name: str) -> dict[str, str | list[str]]:
    """Return the files of other groups that an experiment selects, e.g. `{"method": "tesla"}`."""
    selected: dict[str, str | list[str]] = {}
    for entry in OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))["defaults"]:
        if isinstance(entry, dict):
            selected |= {key.removeprefix("override /"): value for key, value in entry.items()}
        elif entry != "_self_":
            selected |= groups(entry)
    return selected


def composed(path: Path) -> DictConfig:
    """Return the configuration of an experiment. Unlike Hydra, it takes no time."""
    selected = dict(groups(choice(path)))
    teachers = {name: shipped_yaml("teacher", name) for name in selected.pop("teacher", [])}
    values = {group: shipped_yaml(group, name) for group, name in selected.items()}
    return OmegaConf.merge(values, {"teachers": teachers}, shipped_yaml("experiment", choice(path)))


def header(path: Path) -> str:
    """Return the comments before `defaults` as one line, without the command."""
    lines = path.read_text().partition("\ndefaults:")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if not line.startswith("# command"))


def contradictions(text: str, cfg: DictConfig, classes: int | None) -> list[str]:
    """Return the statements of a header that do not agree with the configuration."""
    wrong, method = [], cfg.method

    def check(statement: str, stated: object, actual: object) -> None:
        if stated != actual:
            wrong.append(f"{statement!r}, but the value is {actual}")

    for name, value in re.findall(rf"\b([a-z]+_[a-z_]+) ({NUMBER}) here\b", text):
        check(f"{name} {value} here", float(value), float(OmegaConf.select(method, name)))
    for key, value in re.findall(rf"({KEY}): ({NUMBER}) as in", text):
        check(f"{key}: {value}", float(value), float(OmegaConf.select(method, key)))
    for key, value in re.findall(rf"({KEY})=([^\s),;]+?)\.?(?=[\s),;]|$)", text):
        actual = OmegaConf.select(cfg, key, default="missing")
        if actual == "missing" or actual == yaml.safe_load(value):
            wrong.append(f"{key}={value} is not an alternative: the value is {actual}")
    for count, epochs in re.findall(r"(\d+) experts of (\d+) epochs", text):
        last = method.window.stop - 1 + method.expert_epochs
        check(f"{count} experts", int(count), method.experts.count)
        check(f"experts of {epochs} epochs", int(epochs), max(last, method.experts.init_epoch or 0))
    for count, epochs in re.findall(r"\b(a|four) teachers? of (\d+) epochs, once", text):
        recipes = {t.recipe.epochs for t in cfg.teachers.values()}
        check(f"{count} of {epochs} epochs", (WORDS[count], {int(epochs)}), (len(cfg.teachers), recipes))
    for count in re.findall(r"([\d,]+) patches through the teacher", text):
        patches = method.patches
        check(f"{count} patches", int(count.replace(",", "")), classes * patches.images * patches.crops)
    for ipc, natural, units, total in re.findall(
        r"IPC (\d+): (\d+) natural images per class and (\d+) compensators for all classes, i.e. (\d+) ", text
    ):
        teachers = len(cfg.teachers)
        k = INFER.natural_sets(cfg.ipc, classes, teachers)
        actual = (cfg.ipc, k, k * teachers, k * (teachers + 1))
        check(f"{natural} natural images", tuple(map(int, (ipc, natural, units, total))), actual)
    return wrong


@pytest.mark.parametrize("path", PAPER, ids=lambda p: choice(p).removeprefix("paper/"))
def test_header_agrees_with_the_values(path):
    assert contradictions(header(path), composed(path), CLASSES.get(path.parent.name)) == []


@pytest.mark.parametrize(
    "text",
    [
        "lr_img 1000 here gives the same steps",
        "method.gradient=truncated is the released one",
        "method.gradiant=adjoint is exact",
        "experts.flat.alpha: 0.3 as in the README",
        "99 experts of 6 epochs",
        "100 experts of 7 epochs",
    ],
)
def test_contradictions_are_found(text):
    cfg = composed(FOLDER / "paper" / "cifar10" / "tesla_ipc1.yaml")
    assert len(contradictions(text, cfg, 10)) == 1


@pytest.mark.parametrize(
    ("path", "command"),
    [("cifar10/tesla_ipc1", 1000), ("cifar100/tesla_ipc50", 1000), ("imagenet1k/tesla_ipc1", 10_000)],
)
def test_tesla_takes_the_steps_of_the_released_code(path, command):
    """The released gradient of the images lacks a factor of 2, so half of the command's rate gives its steps."""
    cfg = composed(FOLDER / "paper" / f"{path}.yaml")
    assert (cfg.method.gradient, cfg.method.lr_img) == ("truncated", command / 2)
    assert f"The README's command has lr_img {command}." in header(FOLDER / "paper" / f"{path}.yaml")


SHORT = {
    "resnet18": "R18",
    "resnet50": "R50",
    "shufflenet_v2": "SV2",
    "mobilenet_v2": "MBV2",
    "densenet121": "D121",
}
CV_DD = {  # of the released code: priors of R18, R50, SV2, MBV2, D121; the pair of IPC 1; learning rate; eta by IPC
    "cifar10": ([63, 65.3, 68.5, 67.6, 67.4], {"MBV2", "D121"}, 0.001, (1, 1, 1)),
    "cifar100": ([64, 60.6, 51.6, 59.4, 56.4], {"SV2", "MBV2"}, 0.001, (1, 2, 1)),
    "tiny_imagenet": ([46.5, 28.3, 43.6, 44.8, 41.5], {"R18", "MBV2"}, 0.001, (2, 1, 2)),
    "imagenet1k": ([56.4, 42.3, 52.5, 44.2, 40.6], {"R18", "SV2"}, 0.001, (2, 2, 1)),
    "imagenet10_224": ([62.4, 52, 57.2, 54, 60.8], {"MBV2", "D121"}, 0.0005, (2, 1, 2)),
}
FADRM = {  # of the released code: learning rate and eta by IPC; batch
    "cifar100": (((0.0005, 2), (0.001, 2), (0.001, 1)), 16),
    "tiny_imagenet": (((0.001, 2), (0.001, 2), (0.001, 1)), 16),
    "imagenet1k": (((0.001, 2), (0.001, 2), (0.001, 1)), 16),
    "imagenet10_224": (((0.0005, 2), (0.0005, 1), (0.0005, 2)), 10),
    "imagewoof_224": (((0.0005, 2), (0.0005, 1), (0.001, 2)), 10),
}
SCHEDULES = {1: "cosine", 2: "half_cosine"}
IPCS = (1, 10, 50)


@pytest.mark.parametrize("data", CV_DD)
def test_cv_dd_has_the_values_of_the_released_code(data):
    prior, best, lr, etas = CV_DD[data]
    folder, order = FOLDER / "paper" / data, ["R18", "R50", "SV2", "MBV2", "D121"]
    weights = [math.exp(p / 10) / sum(math.exp(q / 10) for q in prior) for p in prior]
    for ipc, eta in zip(IPCS, etas, strict=True):
        cfg = composed(folder / f"cv_dd_ipc{ipc}.yaml")
        names = [SHORT[name.removeprefix("imagenet_").removesuffix("_tiny")] for name in cfg.teachers]
        assert names == order and (cfg.method.weights, cfg.method.prior) == ("prior", prior)
        assert cfg.protocol.labels.teacher_weights == pytest.approx(weights, abs=6e-4)
        groups = cfg.method.committees
        assert groups is None if ipc > 1 else [{names[j] for j in group} for group in groups] == [best]
        for method in ("cv_dd", "sre2l_pp"):
            recipe = composed(folder / f"{method}_ipc{ipc}.yaml").protocol.recipe
            assert (recipe.lr, recipe.schedule, recipe.batch_size) == (lr, SCHEDULES[eta], 16)


@pytest.mark.parametrize("data", FADRM)
def test_fadrm_has_the_values_of_the_released_code(data):
    cells, batch = FADRM[data]
    for (lr, eta), ipc in zip(cells, IPCS, strict=True):
        for method in ("fadrm", "fadrm_plus"):
            cfg = composed(FOLDER / "paper" / data / f"{method}_ipc{ipc}.yaml")
            recipe = cfg.protocol.recipe
            assert (recipe.lr, recipe.schedule, recipe.batch_size) == (lr, SCHEDULES[eta], batch)
            long = data == "cifar100" or (data, ipc) == ("tiny_imagenet", 1)
            assert recipe.epochs == (1000 if long else 300)
            plain_tiny = (data, method) == ("tiny_imagenet", "fadrm")
            assert cfg.protocol.labels.teacher_mode == ("eval" if plain_tiny else "train")


def test_headers_say_how_the_hyperparameters_were_chosen():
    """A board shows the same choice for a run of the experiment."""
    for path in ALL:
        lines = [line for line in path.read_text().splitlines() if line.startswith("# chosen ")]
        assert len(lines) == 1, f"{path}: add one line: # chosen     paper: ... | untuned: ... | test: ..."
        own, selected = shipped_yaml("experiment", choice(path)), groups(choice(path))
        values = leaves(shipped_config("method", selected["method"])) + leaves(own.get("method", {}))
        record = SimpleNamespace(
            method=selected["method"],
            dataset=own.get("dataset", {}).get("name", selected["dataset"]),
            config={"method": dict(values), "hyperparameters": own.get("hyperparameters")},
            tuning=None,
        )
        found = origin(record).choice
        assert lines[0].startswith(f"# chosen     {found}: "), f"{path}: the board shows {found}"


COMMAND = re.compile(r"dd-bench (?:run|distill|evaluate|prepare|tune)(?P<sweep> -m)? (?P<overrides>.*)")
OVERRIDE = re.compile(r"(?P<key>[a-z_]\w*(?:\.\w+)*)=(?P<value>\[[^\]]*\]|[^\s();]*[^\s();,.:'])")
"""An override in prose, without punctuation after it. `n=5` is not one, because n is not a key of `config.yaml`."""


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a header with overrides, and the overrides of the command that each of them means.

    A line either has a command, or alternatives to the overrides of the first command. If a key occurs again in a line,
    another alternative starts there.
    """
    roots, first = {*main_values(), "teacher", "teachers", "experiment", "base", "set"}, None
    for line in text.partition("\ndefaults:")[0].splitlines():
        if found := COMMAND.search(line):
            words = shlex.split(found["overrides"])
            assert all("=" in word for word in words), f"text after a command: {line}"
            assert found["sweep"] or len(expand(words)) == 1 or "tune" in line, f"a sweep requires -m: {line}"
            first = first or words
            yield line, words
            continue
        alternatives: list[dict[str, str]] = [{}]
        for key, value in OVERRIDE.findall(line):
            if key.partition(".")[0] in roots:
                if key in alternatives[-1]:
                    alternatives.append({})
                alternatives[-1][key] = f"{key}={value}"
        for changed in filter(None, alternatives):
            assert first, f"alternatives before the command: {line}"
            yield line, [w for w in first if w.partition("=")[0] not in changed] + list(changed.values())


def failures(text: str) -> list[str]:
    """Return the jobs of the commands of a header that a run rejects, with its message.

    Jobs that only combine overrides of earlier jobs in another way are left out.
    """
    failed, seen = [], set()
    for line, words in commands(text):
        for job in expand(words):
            if seen.issuperset(job):
                continue
            seen.update(job)
            try:
                run = RunConfig.of(job)
                check_groups(run.cfg, run.choices)
            except ValueError as error:
                failed.append(f"{line}\n    {shlex.join(job)}: {error}")
    return failed


@pytest.mark.parametrize("path", experiment_parameters(ALL))
def test_a_run_accepts_every_command(path):
    failed = failures(path.read_text())
    assert failed == [], "\n".join(failed)


def test_a_rejected_alternative_is_found():
    """It composes, but a key of the experiment's method remains, which no other method reads."""
    text = "# command    dd-bench run experiment=fashion_w32_dm\n#            others: method=dsa, method=random n=5\n"
    assert [words for _, words in commands(text)] == [
        ["experiment=fashion_w32_dm"],
        ["experiment=fashion_w32_dm", "method=dsa"],
        ["experiment=fashion_w32_dm", "method=random"],
    ]
    (found,) = failures(text)
    assert "method=random: method.iterations is not a configuration key" in found
