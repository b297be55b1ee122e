"""`make cuda-check`: tests, accuracy and speed on a machine with one CUDA GPU, within eight minutes.

    python benchmarks/cuda_check.py                         # all parts, the most important first
    python benchmarks/cuda_check.py --parts 2,3 --minutes 4
    python benchmarks/cuda_check.py --out DIR               # also writes into another folder
    python benchmarks/cuda_check.py --rehearse --out DIR    # every part at its smallest size on a CPU
    python benchmarks/cuda_check.py --reference cpu         # the CPU's figures of the accuracy guard that are missing

Each part (`benchmarks/cuda_parts/`) runs in its own process with a time limit. A part that fails or takes too long does
not stop the others, and what it has measured is kept: the results are written after each row of a table. Time that a
part does not need is left to later ones. Results: `benchmarks/results/cuda_check.json`, from which `make tables` writes
docs/performance/cuda.md. A run of some parts replaces only these parts in the file.

Exit status: 0 if every part has ended, 1 if one has not, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cuda_check.json"
LAST_LINES = 25
"""Lines of a part's output that are kept if it does not end."""


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        name: its module in `cuda_parts`.
        share: its share of the time, in seconds of a check of eight minutes.
        command: the command that runs it; the name of the file for its rows is appended.
    """

    name: str
    share: float
    command: Sequence[str] = ()


PARTS = (
    Part("tests", 75),
    Part("accuracy", 110),
    Part("lock_step", 115),
    Part("steps", 60),
    Part("graphs", 20),
    Part("precisions", 60),
    Part("bits", 35),
)


@dataclass
class Results:
    """The results of all parts, written to `paths` after each change.

    Attributes:
        parts: by name: status, seconds, limit in seconds, rows, and the last lines of the output.
        described: description of the machine and the code; added to each part.
        write: function that writes the parts to the files.
    """

    write: Callable[[dict[str, Any]], None]
    described: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def update(self, name: str, **values: Any) -> None:
        """Change the results of a part, and write all results."""
        self.parts[name] = {**self.described, **self.parts.get(name, {}), **values}
        self.write(self.parts)


def check(parts: Sequence[Part], results: Results, seconds: float) -> bool:
    """Run the parts in order within `seconds`, and return whether all of them have ended.

    A part has its share of the time, and what the parts before it have left.
    """
    began, shares = time.monotonic(), 0.0
    whole = sum(part.share for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            shares += part.share
            limit = began + seconds * shares / whole - time.monotonic()
            results.parts.pop(part.name, None)
            print(f"== {part.name}, at most {limit:.0f} s", flush=True)
            run_part(part, Path(folder), limit, results)
            print(f"== {part.name}: {results.parts[part.name]['status']}", flush=True)
    return all(results.parts[part.name]["status"] == "done" for part in parts)


def run_part(part: Part, folder: Path, limit: float, results: Results) -> None:
    """Run a part in its own process, and write its rows to the results as they appear."""
    rows, log, began = folder / f"{part.name}.jsonl", folder / f"{part.name}.log", time.monotonic()
    rows.touch()
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    results.update(part.name, status="running", limit=round(limit, 1), seconds=0.0, rows=[], log=[])
    with log.open("w") as output:
        process = subprocess.Popen(
            [*part.command, str(rows)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            seen = 0
            while process.poll() is None and time.monotonic() - began < limit:
                time.sleep(0.1)
                if len(found := read_rows(rows)) > seen:
                    for row in found[seen:]:
                        print(show(row), flush=True)
                    seen = len(found)
                    results.update(part.name, rows=found, seconds=round(time.monotonic() - began, 1))
            code = process.poll()
        finally:  # also processes that the part has started
            if process.poll() is None or _alive(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for row in (found := read_rows(rows))[seen:]:
        print(show(row), flush=True)
    status = "done" if code == 0 else "timed out" if code is None else f"failed with exit status {code}"
    lines = [] if code == 0 else log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    print("\n".join(lines), flush=True)
    took = round(time.monotonic() - began, 1)
    results.update(part.name, status=status, seconds=took, rows=found, log=lines)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows that are written completely."""
    lines = file.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def show(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}" for name, value in row.items() if name not in ("table", "data") and value != ""
    )


def selected(words: str) -> list[Part]:
    """Return the parts with these numbers (from 1) or names, separated by commas.

    Raises:
        ValueError: there is no such part.
    """
    names = [part.name for part in PARTS]
    chosen = []
    for word in words.split(","):
        name = names[int(word) - 1] if word.isdigit() and 1 <= int(word) <= len(names) else word
        if name not in names:
            raise ValueError(
                f"there is no part {word!r}. Parts: {', '.join(f'{i} {n}' for i, n in enumerate(names, 1))}"
            )
        chosen.append(name)
    return [part for part in PARTS if part.name in chosen]


def commands(parts: Sequence[Part], rehearse: bool) -> list[Part]:
    """Return the parts with the commands that run them."""
    options = ["--rehearse"] if rehearse else []
    return [Part(p.name, p.share, [sys.executable, "-m", "cuda_parts", p.name, *options]) for p in parts]


def described(device: str) -> dict[str, Any]:
    """Return the environment, as in records, and the revision of the code."""
    from cuda_parts.card import Card

    from dd_bench.pipeline import provenance

    runtime = Card(device, small=False).runtime()
    environment = provenance.environment(runtime).model_dump()
    return {"environment": environment, "code": provenance.code().model_dump()}


def writer(files: Sequence[Path], machine: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return a function that writes the results to JSON files, and the tables next to each but the first."""
    import report
    import tables

    def write(parts: dict[str, Any]) -> None:
        figures = {"parts": parts}
        for file in files:
            temporary = file.with_suffix(".tmp")
            report.write(temporary, figures, **machine)
            temporary.replace(file)  # a killed check never leaves half a file
            if file != RESULTS:
                file.with_suffix(".md").write_text(tables.cuda_check(figures) + "\n")

    return write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", help="numbers or names, separated by commas; default: all")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together")
    parser.add_argument("--out", type=Path, help="folder that also gets cuda_check.json and cuda_check.md")
    parser.add_argument(
        "--rehearse", action="store_true", help="smallest sizes on a CPU; writes to --out only"
    )
    parser.add_argument(
        "--reference", choices=["cpu"], help="measure figures of the CPU instead of the check"
    )
    parser.add_argument(
        "--cost", type=float, default=100_000, help="largest case of --reference, see the page"
    )
    args = parser.parse_args()
    if not args.minutes > 0:
        parser.error(f"--minutes must be > 0, got {args.minutes:g}. Example: --minutes 8")
    if args.rehearse and not args.out:
        parser.error("--rehearse requires a folder for its results. Example: --out build/rehearsal")
    try:
        parts = selected(args.parts) if args.parts else list(PARTS)
    except ValueError as error:
        parser.error(str(error))
    if args.reference:
        from cuda_parts import accuracy

        accuracy.measure_reference(["digits", "fashion_mnist"], args.cost)
        return
    began = time.monotonic()
    import torch

    if not args.rehearse and not torch.cuda.is_available():
        parser.exit(
            2,
            "no CUDA GPU: torch.cuda.is_available() is False. To test the script: --rehearse --out DIR\n",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no part is left running
    files = [] if args.rehearse else [RESULTS]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        files.append(args.out / RESULTS.name)
    machine = described("cpu" if args.rehearse else "cuda")
    known = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() and not args.rehearse else {}
    results = Results(writer(files, {"gpu": machine["environment"]["name"]}), machine, known)
    seconds = 60 * args.minutes - (time.monotonic() - began)
    sys.exit(0 if check(commands(parts, args.rehearse), results, seconds) else 1)


if __name__ == "__main__":
    main()
