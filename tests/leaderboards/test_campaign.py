"""campaign.sh: all jobs compose, and unknown parts are rejected."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser

from dd_bench.cli.sweep_overrides import defer_to_jobs, expand

from .conftest import CAMPAIGN

PARSER = OverridesParser.create()


@pytest.mark.slow
def test_every_job_composes(calls):
    parts = re.findall(r"^(\w+)\(\) \{", CAMPAIGN.read_text(), re.MULTILINE)
    done, commands = calls(*(p for p in parts if p not in ("sweep", "sets", "stored_bytes", "printed")))
    assert done.returncode == 0, done.stderr
    hydra = [words for words in commands if words[0] in ("run", "evaluate")]
    assert len(hydra) > 20
    assert sum("method.amount=320" in words for words in hydra) == 6, "as many bytes as Mirage's sets"
    jobs = 0
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        for words in hydra:
            overrides = [
                w for w in words[1:] if w not in ("-m", "--only-missing") and not w.startswith("hydra")
            ]
            found = expand(overrides)
            swept = [o.is_sweep_override() for o in PARSER.parse_overrides(defer_to_jobs(overrides))]
            # Hydra first composes without the swept overrides.
            compose("config", [w for w, s in zip(overrides, swept, strict=True) if not s])
            jobs += len(found)
            for job in {found[0][0]: found[0], found[-1][-1]: found[-1]}.values():
                cfg = compose("config", job)
                assert cfg.runtime.threads == 1 and str(cfg.out).endswith("/out")
                assert words[0] == "run" or Path(str(cfg.set)).is_dir()
    assert jobs > 300
    assert [words[:2] for words in commands[-4:]] == [
        ["leaderboard", "add"],
        ["leaderboard", "build"],
        ["leaderboard", "build"],
        ["progress", commands[-1][1]],
    ]


def test_mirage_legacy_runs_every_experiment_of_mirage_on_three_networks(calls):
    done, commands = calls("mirage_legacy")
    assert done.returncode == 0, done.stderr
    jobs = []
    for words in commands:
        if words[0] == "run":
            jobs += expand([w for w in words if "=" in w and not w.startswith("hydra")])
    found = Counter(word for job in jobs for word in job if word.startswith("experiment="))
    files = (CAMPAIGN.parents[1] / "conf" / "experiment").glob("*_mirage*.yaml")
    one = ("gcn", "gat", "gin")  # molhiv has a file for each network
    assert found == {f"experiment={f.stem}": 1 if f.stem.endswith(one) else 3 for f in files}
    for job in jobs:
        assert ("dataset.name=ogbg_molhiv_rebuilt" in job) == any("molhiv_mirage" in word for word in job)


def test_an_unknown_part_is_rejected(calls):
    done, commands = calls("selection", "nonsense")
    assert done.returncode == 2 and "unknown part nonsense" in done.stderr
    assert commands == [], "no job starts before all parts are checked"
