"""Migrate committed entries and sets: names instead of Python paths, renamed keys, one folder per dataset.

    git worktree add OLD ba3093c
    python leaderboards/migrations/second_edition.py OLD [--data FOLDER]
    dd-bench leaderboard build && dd-bench leaderboard plot
    python leaderboards/migrations/second_edition.py OLD --check

OLD is a checkout of the old revision. The first run writes `leaderboards/entries`, `sets` and `verified` from those of
OLD, and `second_edition.json` with the map of old to new keys and digests. The second run checks that nothing else
changed: all scores, intervals, notes and sizes of entries, the sha256 of all files of sets, and all cells of tables. It
prints the counts. `--data` is the folder of the graph datasets.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from dd_bench.data.dataset import RealSet
from dd_bench.leaderboards.core.entries import Track, entry_path
from dd_bench.models.architecture import Architecture
from dd_bench.pipeline.keys import Keys
from dd_bench.records.config_diff import describe, shipped_config, shipped_target
from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical
from dd_bench.teachers.teacher_spec import TeacherConfig, TeacherSpec
from dd_bench.training.protocol import Protocol

HERE = Path(__file__).resolve().parent
BOARDS = HERE.parent
MAP = HERE / "second_edition.json"
PLACES = ("root", "download", "kept", "stream")
RENAMED = {"dialect": ("augment_style", {True: "idc", False: "dsa"}), "looks": ("eval_points", None)}
DECAY = {"all": "all", "matrices": "weights_only"}


# --- names -----------------------------------------------------------------------------------------------------------


@cache
def old_yaml(old: Path, group: str) -> dict[str, dict[str, Any]]:
    """Return the YAML files of a group at the old revision, by name."""
    files = (old / "conf" / group).glob("*.yaml")
    found: dict[str, Any] = {f.stem: OmegaConf.to_container(OmegaConf.load(f)) for f in files}
    return found


def best_choice(old: Path, group: str, values: dict[str, Any], prefer: str) -> str:
    """Return the YAML file with the same `_target_` as `values` and the fewest different values."""
    same = {n: y for n, y in old_yaml(old, group).items() if y.get("_target_") == values["_target_"]}
    assert same, (group, values["_target_"])

    def changes(name: str) -> int:
        return sum(same[name].get(k, v) != v for k, v in values.items() if k not in PLACES)

    return min(same, key=lambda n: (changes(n), n != prefer, n))


def renamed(value: Any) -> Any:
    """Return a configuration with the new names of its keys."""
    if isinstance(value, list):
        return [renamed(v) for v in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if key in RENAMED:
            name, values = RENAMED[key]
            found[name] = inner if values is None else values[inner]  # type: ignore[index]
        elif key == "decay" and inner in DECAY:
            found["decay_filter"] = DECAY[inner]
        else:
            found[key] = renamed(inner)
    return found


def named(choice: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a group with its configuration name instead of `_target_`."""
    return {"_choice_": choice, **{k: v for k, v in values.items() if not k.startswith("_")}}


def new_config(
    old: Path, config: dict[str, Any], method: str, dataset: str, names: dict[str, str]
) -> dict[str, Any]:
    """Return the configuration of a record or card, with the names and new keys of all groups."""
    found: dict[str, Any] = copy.deepcopy(config)
    if found.get("method"):
        found["method"] = named(method, dropped(old, method, found["method"]))
    for group, prefer in (
        ("dataset", dataset),
        ("model", names.get("model", "")),
        ("evaluator", names.get("evaluator", "")),
    ):
        if found.get(group):
            choice = names.get(group) or best_choice(old, group, found[group], prefer)
            values = found[group]
            for name, network in (values.get("networks") or {}).items() if group == "evaluator" else ():
                values["networks"][name] = named(best_choice(old, "model", network, name), network)
            found[group] = named(choice, values)
    for name, spec in (found.get("teachers") or {}).items():
        (choice,) = (
            n for d in old_yaml(old, "teacher")[name]["defaults"] if isinstance(d, dict) for n in d.values()
        )
        assert old_yaml(old, "model")[choice]["_target_"] == spec["model"]["_target_"]
        spec["model"] = named(choice, spec["model"])
    if "logger" in found:
        found["logger"] = {k: v for k, v in found["logger"].items() if not k.startswith("_")}
    new: dict[str, Any] = renamed(found)
    return new


def dropped(old: Path, method: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a method without the keys that are now constants in its module."""
    new, before = shipped_config("method", method), old_yaml(old, "method").get(method, {})
    gone = [k for k in values if k not in new and not k.startswith("_")]
    for key in gone:
        assert values[key] == before.get(key), f"{method}.{key}={values[key]!r} is not the old default"
    return {k: v for k, v in values.items() if k not in gone}


# --- keys ------------------------------------------------------------------------------------------------------------


class Data:
    """The real sets of the entries, each loaded once."""

    def __init__(self, graphs: Path | None):
        self.graphs, self.sets = graphs, dict[str, RealSet]()

    def load(self, config: dict[str, Any]) -> RealSet:
        """Return the real set of a configuration."""
        knobs = {k: v for k, v in config.items() if not k.startswith("_") and k not in ("kept",)}
        where = canonical({k: v for k, v in knobs.items() if k not in PLACES} | {"is": config["_choice_"]})
        if where not in self.sets:
            if "root" in knobs:
                own = config["_choice_"] in ("tu", "ogb_mol")
                knobs["root"] = str(self.graphs) if own and self.graphs else None
            load = get_object(str(shipped_target("dataset", config["_choice_"])))
            if "kept" in config:
                knobs["kept"] = None
            self.sets[where] = load(**knobs, device=torch.device("cpu"))
        return self.sets[where]


def architecture(values: dict[str, Any], real: RealSet) -> Architecture:
    """Return the network of a configuration."""
    make = get_object(str(shipped_target("model", values["_choice_"])))
    knobs = {k: v for k, v in values.items() if not k.startswith("_")}
    return Architecture(make, knobs, real.shape, real.num_classes, values["_choice_"])


def teachers(config: dict[str, Any], real: RealSet) -> list[TeacherSpec]:
    """Return the teachers of a configuration."""
    return [
        TeacherSpec(
            name,
            architecture(spec["model"], real),
            TeacherConfig.model_validate({k: v for k, v in spec.items() if k != "model"}),
        )
        for name, spec in (config.get("teachers") or {}).items()
    ]


class Runtime:
    """The attributes of a runtime that content keys depend on."""

    def __init__(self, device: str):
        self.autocast, self.device = "bf16" in device, torch.device("cpu")


def keys_of(config: dict[str, Any], device: str, data: Data) -> Keys:
    """Return the content keys of a run."""
    real = data.load(config["dataset"])
    return Keys(config, real, architecture(config["model"], real), teachers(config, real), Runtime(device))  # type: ignore[arg-type]


# --- the migration ---------------------------------------------------------------------------------------------------


def migrate(old: Path, data: Data) -> None:
    """Write the migrated entries, sets and verdicts."""
    table: dict[str, dict[str, str]] = {
        "set folders": {},
        "set digests": {},
        "record keys": {},
        "entries": {},
    }
    for name in ("entries", "sets", "verified"):
        shutil.rmtree(BOARDS / name)
    for folder in sorted(p.parent for p in (old / "leaderboards" / "sets").glob("*/card.json")):
        _migrate_set(old, folder, data, table)
    for path in sorted((old / "leaderboards" / "entries").glob("*.json")):
        _migrate_entry(old, path, data, table)
    for path in sorted((old / "leaderboards" / "verified").glob("*.json")):
        verdict = json.loads(path.read_text())
        verdict["entry"] = table["entries"][verdict["entry"]]
        _write(BOARDS / "verified" / f"{verdict['entry'][:16]}.json", verdict)
    _write(MAP, table)
    sys.stdout.write(
        f"{len(table['set digests'])} sets, {len(table['entries'])} entries migrated; map in {MAP}\n"
    )


def _migrate_set(old: Path, folder: Path, data: Data, table: dict[str, dict[str, str]]) -> None:
    text = (folder / "card.json").read_text()
    card = json.loads(text)
    assert canonical(card, indent=2) + "\n" == text
    config = card["config"]
    stem, key, twin = re.fullmatch(r"(.*)-([0-9a-f]{16})(-[0-9a-f]{8})?", folder.name).groups()  # type: ignore[union-attr]
    card["schema_version"] = 2
    card["config"] = new_config(old, config, card["method"], card["dataset"], {})
    if "model" in config:
        provenance = json.loads((folder / "provenance.json").read_text())
        device = provenance.get("device", "")
        keys = keys_of(card["config"], device, data)
        kind = get_object(str(shipped_target("method", card["method"])))
        index = _index_of(keys, config["seed"], card["seed"])
        key = keys.synthetic_set(kind.uses_teachers, card["ipc"], config["seed"], index)
    name = f"{stem}-{key}{twin or ''}"  # two machines computed different tensors for the same key
    to = BOARDS / "sets" / re.sub(r"[^A-Za-z0-9+=.-]+", "_", card["dataset"]) / name
    assert not to.exists(), f"{folder.name} and another set are {name}"
    shutil.copytree(folder, to)
    _write(to / "card.json", card)
    table["set folders"][folder.name] = f"{to.parent.name}/{name}"
    table["set digests"][_sha256(folder / "card.json")] = _sha256(to / "card.json")


def _index_of(keys: Keys, run_seed: int, seed: int) -> int:
    from dd_bench.runtime.seeding import seed_for

    return next(i for i in range(100) if seed_for(run_seed, "set", i) == seed)


def _migrate_entry(old: Path, path: Path, data: Data, table: dict[str, dict[str, str]]) -> None:
    text = path.read_text()
    record = json.loads(text)
    assert canonical(record, indent=2) + "\n" == text
    before = record["key"]
    names = {g: record[g].partition("(")[0] for g in ("model", "evaluator")}
    config = record["config"] = new_config(old, record["config"], record["method"], record["dataset"], names)
    record["schema_version"] = 2
    sets = [table["set digests"].get(d, d) for d in record["set_digests"]]
    known = all(d in table["set digests"] for d in record["set_digests"])
    record["set_digests"] = sets
    for group in ("model", "evaluator"):
        record[group] = new_words(record[group])
    record["protocol"]["name"] = new_words(record["protocol"]["name"])
    _check_names(record)
    keys = keys_of(config, record["device"], data)
    seed, real = record["seeds"]["run"], data.load(config["dataset"])
    assert real.digest == record["real_digest"] or record["status"] != "done", path.name
    if config.get("set") is not None:
        names_of_sets = sets
        if not known:
            sys.stderr.write(f"{path.name}: its set is not committed, so its digest is not changed\n")
    else:
        kind = get_object(str(shipped_target("method", record["method"])))
        names_of_sets = [
            keys.synthetic_set(kind.uses_teachers, record["ipc"], seed, i) for i in range(config["num_sets"])
        ]
    record["key"] = keys.record(names_of_sets, Protocol.model_validate(config["protocol"]), seed)
    assert before not in table["record keys"] and record["key"] not in table["record keys"].values(), (
        path.name
    )
    table["record keys"][before] = record["key"]
    parsed = Record.model_validate(record)
    content = canonical(record, indent=2) + "\n"
    digest = hashlib.sha256(content.encode()).hexdigest()
    to = BOARDS / "entries" / entry_path(parsed.with_text(content))
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(content)
    table["entries"][hashlib.sha256(text.encode()).hexdigest()] = digest


def new_words(text: str) -> str:
    """Return a name with its changed keys, e.g. `graph(looks=10)`, with the new names of the keys."""
    text = re.sub(r"\blooks=", "eval_points=", text)
    text = text.replace("dialect=True", "augment_style=idc").replace("dialect=False", "augment_style=dsa")
    text = re.sub(r"\bdecay=matrices", "decay_filter=weights_only", text)
    return re.sub(r"\bdecay=all", "decay_filter=all", text)


def _check_names(record: dict[str, Any]) -> None:
    """Check that the names that choose the board agree with the new configuration."""
    config = record["config"]
    for group in ("model", "evaluator"):
        name, values = record[group].partition("(")[0], config[group]
        if group == "evaluator":
            repeats = get_object(str(shipped_target("evaluator", name))).repeats
            values = {k: v for k, v in values.items() if k not in repeats}
        assert describe(group, name, values) == record[group], (
            record["key"],
            describe(group, name, values),
            record[group],
        )


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(canonical(data, indent=2) + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the check -------------------------------------------------------------------------------------------------------


def check(old: Path) -> int:
    """Compare with the old revision, and return 1 if anything differs."""
    table = json.loads(MAP.read_text())
    differences = [*_check_entries(old, table), *_check_sets(old, table), *_check_tables(old, table)]
    for line in differences:
        sys.stdout.write(f"DIFFERS: {line}\n")
    return int(bool(differences))


def _check_entries(old: Path, table: dict[str, dict[str, str]]) -> list[str]:
    new = {_sha256(p): json.loads(p.read_text()) for p in (BOARDS / "entries").glob("*/*.json")}
    wrong, scores, intervals = [], 0, 0
    changed = {"config", "key", "schema_version", "set_digests", "model", "evaluator", "protocol"}
    for path in sorted((old / "leaderboards" / "entries").glob("*.json")):
        before, after = json.loads(path.read_text()), new[table["entries"][_sha256(path)]]
        fields = (before.keys() | after.keys()) - changed
        wrong += [f"{path.name}: {key}" for key in fields if before.get(key) != after.get(key)]
        scores += len(before["scores"])
        if before["status"] == "done":
            a, b = (Record.model_validate({**r, "schema_version": 2}) for r in (before, after))
            for metric in a.metrics:
                intervals += 1
                if a.summary(metric) != b.summary(metric):
                    wrong.append(f"{path.name}: interval of {metric}")
        digests = [table["set digests"].get(d, d) for d in before["set_digests"]]
        if digests != after["set_digests"]:
            wrong.append(f"{path.name}: set_digests")
        if _leaves(before["config"]) != _leaves(after["config"]) and (gone := _gone(before, after)):
            wrong.append(f"{path.name}: configuration: {gone}")
    sys.stdout.write(
        f"{len(new)} entries: {scores} scores, {intervals} means with their intervals, and all other fields except "
        f"the names are {'equal' if not wrong else 'NOT equal'}\n"
    )
    return wrong


def _leaves(value: Any) -> list[Any]:
    """Return the sorted values of a configuration, without keys and without `_target_`."""
    if isinstance(value, dict):
        inner = [(k, v) for k, v in value.items() if not str(k).startswith("_")]
        return sorted((x for _, v in inner for x in _leaves(v)), key=repr)
    if isinstance(value, list):
        return [x for v in value for x in _leaves(v)]
    return [
        {True: "idc", False: "dsa"}.get(value, value)
        if isinstance(value, bool)
        else DECAY.get(str(value), value)
    ]


def _gone(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the changed parts of a configuration, except method keys that are constants now."""
    a = {k: v for k, v in before["config"].items() if k != "method"}
    b = {k: v for k, v in after["config"].items() if k != "method"}
    found = [] if _without_private_keys(renamed(a)) == _without_private_keys(b) else ["outside the method"]
    method = renamed(before["config"].get("method", {}))
    for key, value in after["config"].get("method", {}).items():
        if not key.startswith("_") and method.get(key) != value:
            found.append(f"method.{key}")
    return found


def _without_private_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_private_keys(v) for k, v in value.items() if not str(k).startswith("_")}
    return [_without_private_keys(v) for v in value] if isinstance(value, list) else value


def _check_sets(old: Path, table: dict[str, dict[str, str]]) -> list[str]:
    wrong, files = [], 0
    for before, after in table["set folders"].items():
        a, b = old / "leaderboards" / "sets" / before, BOARDS / "sets" / after
        for path in sorted(a.iterdir()):
            if path.name == "card.json":
                one, two = (json.loads((f / path.name).read_text()) for f in (a, b))
                if any(one[k] != two[k] for k in one if k not in ("config", "schema_version")):
                    wrong.append(f"{after}: card")
                continue
            files += 1
            if _sha256(path) != _sha256(b / path.name):
                wrong.append(f"{after}/{path.name}")
    sys.stdout.write(f"{len(table['set folders'])} sets: {files} files have the same sha256\n")
    return wrong


def _check_tables(old: Path, table: dict[str, dict[str, str]]) -> list[str]:
    """Compare all tables, after replacing old keys, digests and file names by the new ones."""
    words = {b[:16]: a[:16] for part in ("entries", "set digests") for b, a in table[part].items()}
    words |= dict(table["record keys"])
    whole = {b: a for part in ("entries", "set digests") for b, a in table[part].items()}
    records = [json.loads(p.read_text()) for p in (BOARDS / "entries").glob("*/*.json")]
    tracks = {Track.of(Record.model_validate(r)) for r in records}
    names = {old_slug(t): t for t in tracks}
    wrong, count, cells = [], 0, 0
    for path in sorted((old / "leaderboards" / "tables").iterdir()):
        track = names.get(path.stem)
        to = BOARDS / "tables" / (f"{track.path}{path.suffix}" if track else path.name)
        text = path.read_text()
        text = re.sub(r"\b[0-9a-f]{64}\b", lambda m: whole.get(m[0], m[0]), text)
        text = re.sub(r"\b[0-9a-f]{16}\b", lambda m: words.get(m[0], m[0]), text)
        for slug, t in names.items():
            text = text.replace(f"tab:{slug}", f"tab:{t.slug}").replace(
                f"({slug}.", f"({t.name if track else t.path}."
            )
            text = text.replace(f"[{slug}.", f"[{t.name if track else t.path}.")
        got = to.read_text() if to.exists() else ""
        count += 1
        cells += text.count("|") + text.count("&") + (text.count(",") if path.suffix == ".csv" else 0)
        if path.suffix == ".csv":
            lost = sum(a != b for a, b in zip(_rows(new_words(text)), _rows(got), strict=True))
            wrong += [f"{to.relative_to(BOARDS)}: {lost} rows"] * bool(lost)
        elif _lines(new_words(text)) != _lines(got):
            a, b = set(_lines(new_words(text))), set(_lines(got))
            wrong.append(
                f"{to.relative_to(BOARDS)}: {len(a - b)} lines, the first {sorted(a - b)[:1]} {sorted(b - a)[:1]}"
            )
    sys.stdout.write(f"compared {count} tables with about {cells} cells\n")
    return wrong


def _rows(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV sorted by digest, without the configuration, which `_check_entries` compares."""
    rows = list(csv.DictReader(text.splitlines()))
    return sorted(({k: v for k, v in r.items() if k != "config"} for r in rows), key=lambda r: r["digest"])


def _lines(text: str) -> list[str]:
    """Return the sorted lines of a text, with the padding of table columns removed."""
    return sorted(re.sub(r" +", " ", re.sub(r"-{3,}", "---", line)) for line in text.splitlines())


def old_slug(t: Track) -> str:
    """Return the old file name of a board."""

    def slug(word: str) -> str:
        return re.sub(r"[^A-Za-z0-9+=.-]+", "_", word).strip("_.-") or "_"

    parts = [t.dataset, f"{t.protocol}-v{t.version}", t.selection, t.label_mode, t.evaluator, t.model]
    parts += [t.metric] * (t.metric != t.evaluator) + [t.teachers] * bool(t.teachers)
    whole = "--".join(map(slug, parts))
    if len(whole) <= 200:
        return whole
    return f"{whole[:191]}-{hashlib.sha256(canonical(whole).encode()).hexdigest()[:8]}"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="checkout of the old revision")
    parser.add_argument("--data", type=Path, help="folder of graph collections")
    parser.add_argument("--check", action="store_true", help="compare with the old revision")
    args = parser.parse_args()
    if args.check:
        return check(args.old)
    migrate(args.old, Data(args.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
