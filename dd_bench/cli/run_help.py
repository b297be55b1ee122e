"""`dd-bench run --help`: the configuration keys and what they are, from the comments in the YAML files.

Does not import torch or Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources

from dd_bench.cli.commands import EXAMPLES
from dd_bench.pipeline.choices import choices

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+): *(?P<value>[^#]*?)(?: +# *(?P<comment>.*))?$")
_DEFAULT = re.compile(r"^  - (?P<group>[\w/]+): (?P<value>\S+) *(?:# *(?P<comment>.*))?$")
_SET = (
    "set=FOLDER or set=URL (required)  the synthetic set: a folder that `distill`, `pull` or `import` has written\n"
    "dataset=NAME                      the real set from which it was distilled; its test split is used\n"
    "protocol=NAME, evaluator=NAME     how fresh networks are trained, and what is measured\n"
    "model=NAME                        the architecture of the fresh networks"
)


def run_help(command: str, purpose: str, arguments: Sequence[str]) -> str:
    """Return the help of a command that runs a configuration. `method=NAME` in `arguments` adds the keys of NAME."""
    config = (resources.files("dd_bench.conf") / "config.yaml").read_text()
    selected = dict(a.split("=", 1) for a in arguments if re.fullmatch(r"[a-z]+=[\w-]+", a))
    parts = [f"usage: dd-bench {command} [KEY=VALUE ...]\n\n{purpose}", f"example: {EXAMPLES[command]}"]
    if command == "evaluate":
        parts.append(f"Main keys:\n{_indented(_SET.splitlines())}")
    parts.append("Groups (dd-bench list GROUP prints all choices):\n" + _table(_groups(config)))
    parts.append("Keys:\n" + _table(yaml_keys(config)))
    groups = ("method", "dataset", "model", "evaluator", "protocol", "runtime", "logger")
    parts += [_group_help(group, selected[group]) for group in groups if group in selected]
    group = "evaluator" if command == "evaluate" else "method"
    if group not in selected:
        parts.append(f"To add the keys of a group, select it: dd-bench {command} {group}=NAME --help")
    parts.append(
        "--cfg job    print the composed configuration, and run nothing\n"
        "-m           run all combinations of comma-separated values: dd-bench run -m method=random,dm ipc=1,10\n"
        "--hydra-help print the options of Hydra"
    )
    return "\n\n".join(parts) + "\n"


def _groups(config: str) -> Iterator[tuple[str, str]]:
    for line in config.splitlines():
        found = _DEFAULT.match(line)
        if found:
            group = found["group"]
            names = [name for name in choices(group) if "/" not in name]
            some = ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")
            yield f"{group}={found['value']}", f"{found['comment'] or ''}: {some}"


def yaml_keys(text: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield `(key=value, comment)` of the keys of a YAML file in block style, without Hydra's own keys."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found or found["key"] in ("defaults", "hydra") or found["key"].startswith("_"):
            if line.startswith("hydra:"):
                return
            continue
        depth = len(found["indent"])
        parents = [p for p in parents if p[0] < depth]
        key = ".".join([*(name for _, name in parents), found["key"]])
        if found["value"] == "":
            parents.append((depth, found["key"]))
            if not found["comment"]:
                continue
        yield f"{path}{key}={found['value']}", found["comment"] or ""


def _group_help(group: str, name: str) -> str:
    file = resources.files("dd_bench.conf") / group / f"{name}.yaml"
    if not file.is_file():
        return f"{group}={name} does not exist. To list all: dd-bench list {group}"
    rows = _with_included(group, name)
    title = choices(group).get(name, "")
    return f"Keys of {group}={name} ({title}):\n" + _table(
        (f"{k}={v}", text) for k, (v, text) in rows.items()
    )


def _with_included(group: str, name: str) -> dict[str, tuple[str, str]]:
    """Return the value and the comment of each key of a file, and of the files of its group that it includes."""
    text = (resources.files("dd_bench.conf") / group / f"{name}.yaml").read_text()
    rows: dict[str, tuple[str, str]] = {}
    for included in re.findall(r"^  - ([\w-]+) *(?:#.*)?$", text, re.MULTILINE):
        if included != "_self_":
            rows |= _with_included(group, included)
    for row, comment in yaml_keys(text, f"{group}."):
        key, _, value = row.partition("=")
        rows[key] = value, comment or rows.get(key, ("", ""))[1]
    return rows


def _table(rows: Iterator[tuple[str, str]]) -> str:
    lines = list(rows)
    width = min(34, max((len(key) for key, _ in lines), default=0))
    return _indented(f"{key:<{width}}  {text}".rstrip() for key, text in lines)


def _indented(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
