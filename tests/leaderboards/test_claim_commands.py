"""Every check of a claim is measured by one of the commands of the claim.

The commands are composed, and those of a part of `campaign.sh` are recorded. The selectors of a check are compared with
the configurations: dataset, protocol, method, IPC, network, evaluator and the hyper-parameters that they name.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from dd_bench.cli.sweep_overrides import expand
from dd_bench.leaderboards.core import claims as module
from dd_bench.leaderboards.core.claims import load_claims
from dd_bench.leaderboards.core.selectors import MAIN_EVALUATORS, Selector
from dd_bench.records.config_diff import changed_keys

from .conftest import CAMPAIGN

ROOT = Path(__file__).parents[2]
PAPERS = load_claims(Path(module.__file__).parents[1] / "published" / "claims.yaml")
CLAIMS = {f"{paper.name} {n}": claim for paper in PAPERS for n, claim in enumerate(paper.claims, 1)}
FROM_A_SET = re.compile(r"(?P<method>\w+)-(?P<dataset>.+)-ipc(?P<ipc>\d+)-[0-9a-f]+$")
"""Names of folders of sets."""
NOT_COMPARED = ("made_with", "stored.", "labels")
"""Keys of selectors that no single command has."""


@dataclass(frozen=True)
class Job:
    """What is known of the record of a job: the names of its parts, and its configuration."""

    choices: dict[str, str]
    config: dict[str, Any]
    source: dict[str, str] = field(default_factory=dict)
    """Method and IPC of the set that is evaluated."""

    @property
    def dataset(self) -> str:
        settings = self.config["dataset"]
        name = settings.get("name") or self.choices["dataset"]
        classes = settings.get("classes")
        return f"{name}-classes{classes[0]}-{classes[-1]}" if classes else name

    @property
    def protocol(self) -> str:
        name, recipe = self.choices["protocol"], self.config["protocol"]
        named = ("name", "version", "labels")  # their changes are not in the name, or in another field
        changed = [
            c for c in changed_keys("protocol", name, recipe) if c.split("=")[0].split(".")[0] not in named
        ]
        return f"{name}(...)" if changed else name

    def meets(self, selector: Selector) -> bool:
        method = self.source.get("method", self.choices["method"])
        if (self.dataset, self.protocol, method) != (selector.dataset, selector.protocol, selector.method):
            return False
        if "evaluator" not in selector.where and self.choices["evaluator"] not in MAIN_EVALUATORS:
            return False
        return all(self._meets(key, value) for key, value in selector.where.items())

    def _meets(self, key: str, value: str) -> bool:
        if key.startswith(NOT_COMPARED) or (self.source and key.startswith("method.")):
            return True
        if key == "ipc":
            return value == str(self.source.get("ipc", self.config["ipc"]))
        if key == "model" and self.choices["evaluator"] == "linear_probe":
            return value in self.choices["teacher"]
        if key in ("model", "evaluator"):
            return value == self.choices[key]
        if key == "base.method":
            base = FROM_A_SET.match(Path(str(self.config.get("base"))).name)
            return base is not None and base["method"] == value
        found: Any = self.config
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if type(found) in (int, float):
            return float(value) == found
        return str(found) == value


@cache
def composed(words: tuple[str, ...]) -> Job:
    cfg = compose("config", list(words), return_hydra_config=True)
    choices = {k: str(v) for k, v in cfg.hydra.runtime.choices.items()}
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    config: Any = OmegaConf.to_container(cfg)
    found = FROM_A_SET.match(Path(str(config.get("set"))).name)
    return Job(choices, config, found.groupdict() if found else {})


def jobs_of(words: list[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each job of the arguments of `dd-bench`."""
    if words[0] not in ("run", "evaluate"):
        return []
    jobs = expand([w for w in words[1:] if not w.startswith(("-", "hydra"))])
    assert len(jobs) == 1 or "-m" in words, f"a sweep requires -m: {shlex.join(words)}"
    return [tuple(job) for job in jobs]


def may_meet(job: tuple[str, ...], wanted: Sequence[Selector]) -> bool:
    """Return whether the choices among the overrides of a job are those of a selector. Composing all jobs is slow."""
    choices = dict(word.split("=", 1) for word in job)
    found = FROM_A_SET.match(Path(choices.get("set", "")).name)
    own = found.groupdict() if found else {k: choices[k] for k in ("method", "ipc") if k in choices}
    own |= {k: choices[k] for k in ("protocol", "model", "teacher") if k in choices}
    if "dataset.name" in choices or choices.get("dataset") in ("digits", "fashion_mnist"):
        own["dataset"] = choices.get("dataset.name", choices.get("dataset", ""))

    def agrees(selector: Selector) -> bool:
        where, probe = selector.where, selector.where.get("evaluator") == "linear_probe"
        needed = {"method": selector.method, "protocol": selector.protocol.partition("(")[0]}
        needed |= {"dataset": selector.dataset.partition("-classes")[0], "ipc": where.get("ipc")}
        needed |= {"teacher" if probe else "model": where.get("model")}
        return all(
            needed.get(key) in (None, value) for key, value in own.items() if key != "dataset" or not found
        )

    return any(map(agrees, wanted))


def selectors(line: str) -> list[Selector]:
    """Return the selectors of a line of `quantities`."""
    words = [w for w in shlex.split(line) if not w.startswith(("digits=", "percent="))]
    if words[0] in ("benchmark", "published", "shipped"):
        return []
    if words[0] == "ratio":
        middle = words.index("/")
        return selectors(shlex.join(words[1:middle])) + selectors(shlex.join(words[middle + 1 :]))
    middle = words.index("vs") if "vs" in words else len(words)
    first = words[1:middle]
    bare = [w for w in first if not re.match(r"[\w.]+=", w)]
    parsed = Selector.parse([w for w in first if w not in bare[3:]])
    return [parsed, *([parsed.other(words[middle + 1 :])] if middle < len(words) else [])]


def writes(command: str, name: str) -> bool:
    """Return whether a command writes the file `name`.json of benchmark results."""
    if (script := re.search(r"benchmarks/(\w+)\.py", command)) is not None:
        return f"{name}.json" in command or f'"{name}.json"' in (ROOT / script[0]).read_text()
    if (part := re.search(r"campaign\.sh \S+ (\w+)", command)) is not None:
        body = CAMPAIGN.read_text().partition(f"\n{part[1]}() {{")[2]
        return any(writes(line, name) for line in body.partition("\n}\n")[0].replace("\\\n", "").splitlines())
    return False


@pytest.fixture(scope="module")
def parts() -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Jobs of parts of `campaign.sh`, which several claims have."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_commands_measure_the_checks(name, calls, parts):
    claim = CLAIMS[name]
    checks = [check for track in (claim.paper, claim.honest) for check in (track.checks if track else ())]
    missing = [(s, check.label) for check in checks for s in selectors(check.read)]
    jobs: list[tuple[str, ...]] = []
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        for command in claim.command:
            words = shlex.split(command)
            if words[0] == "dd-bench":
                jobs += jobs_of(words[1:])
            elif words[:2] == ["bash", "leaderboards/campaign.sh"]:
                part = tuple(words[3:])
                if part not in parts:
                    done, called = calls(*part)
                    assert done.returncode == 0, done.stderr
                    parts[part] = [job for one in called for job in jobs_of(one)]
                jobs += parts[part]
        for job in jobs:
            if may_meet(job, [s for s, _ in missing]):
                found = composed(job)
                missing = [(s, label) for s, label in missing if not found.meets(s)]
    assert not missing, f"no command of claim {name} measures:\n" + "\n".join(
        f"{selector.text()} ({label})" for selector, label in missing
    )
    for check in checks:
        if check.read.startswith("benchmark "):
            file = check.read.split()[1]
            assert any(writes(command, file) for command in claim.command), f"{name}: {file}.json"
