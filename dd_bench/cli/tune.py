"""`dd-bench tune`: parse the arguments, print the trials and the best configuration."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_bench.records.tuning import Trial, Tuning, override_words
from dd_bench.runtime.files import writable_hint
from dd_bench.runtime.terminal import sanitize

_DESCRIPTION = """\
Search a method's hyper-parameters on validation data: images that are cut from the training split, or the validation
split of a dataset of graphs or nodes. Test data are not used. The validation split of nodes can have more labels than
the training split: on Cora, 500 nodes in addition to the 140 for training.

Overrides with several values in Hydra's sweep grammar are the search space: lists a,b,c, choice(...), range(...),
interval(...), int(interval(...)) and tag(log,interval(...)). All other overrides are fixed. Each trial distils a set
without the validation images, or without the labels of the validation nodes, and scores fresh networks on them. If the
space has at most --trials configurations, all are tried; otherwise Optuna's TPE selects them. When restarted, the
command continues and repeats no finished trial.
"""
_EPILOG = """\
examples:
  dd-bench tune method=dm dataset=digits ipc=1 'method.lr_img=0.1,1,10'
  dd-bench tune method=dm ipc=10 'method.lr_img=tag(log,interval(0.1,10))' 'method.batch_real=32,64' --trials 20
  dd-bench run  method=dm ipc=10 tuning=runs/tune/NAME/tuning.json      use the best values, and record the trials
"""


def tune_command(arguments: list[str]) -> int:
    """Run a search and return the exit status: 0, 1 if no trial has a score, or 2 for wrong usage."""
    args = _parser().parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")
    from dd_bench.pipeline.compose import USER_ERRORS  # imports torch
    from dd_bench.runtime import distributed

    if distributed.num_launched() > 1:
        sys.stderr.write(
            "error: under torchrun, dd_bench supports only the command prepare, got tune. To share a search, start "
            "dd-bench tune several times\n"
        )
        return 1
    try:
        from dd_bench.pipeline import tune  # imports Optuna, which is optional

        search = tune.plan(args.override, args.name)
        result = tune.tune(search, args.trials, _print_trial)
    except USER_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stderr.write(f"error: {sanitize(writable_hint(error))}\n")
        return 1
    sys.stdout.write(summary(result, search.final, str(search.file)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dd-bench tune",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "override", nargs="*", help="overrides as of dd-bench run; seed= is also that of the search"
    )
    parser.add_argument(
        "--trials", type=int, default=20, metavar="N", help="maximum number of trials (default: %(default)s)"
    )
    parser.add_argument(
        "--name",
        help="folder of the study in OUT/tune (default: method, dataset, IPC and a hash of the search)",
    )
    return parser


def summary(result: Tuning, fixed: Sequence[str], file: str) -> str:
    """Return a table of the trials, best first, the best overrides, and the command that uses them."""
    console = Console(width=None if sys.stdout.isatty() else 200, file=sys.stdout)
    keys = sorted(result.space)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("trial", f"{result.metric} (%)", "n", *keys, ""):
        table.add_column(column, justify="right" if column in ("trial", "n") else "left", overflow="fold")
    for trial in sorted(result.trials, key=lambda t: (-t.value if t.value is not None else 1.0, t.number)):
        values = (override.partition("=")[2] for override in override_words(trial.params))
        remark = "best" if trial.number == result.chosen else trial.reason or ""
        cells = (str(trial.number), _score(trial), str(trial.networks or ""), *values, remark)
        table.add_row(*(Text(sanitize(cell)) for cell in cells))  # a value such as [a,b] is not markup
    with console.capture() as captured:
        console.print(table)
    rows = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return (
        f"{rows}\n\nbest configuration on the validation split (mean ± standard deviation over n networks):\n"
        f"    {shlex.join(result.overrides())}\n"
        "to measure it on the test split, and to store the trials in the record:\n"
        f"    {shlex.join(['dd-bench', 'run', *fixed, f'tuning={file}'])}\n"
    )


def _print_trial(trial: Trial, finished: int, total: int) -> None:
    words, n = " ".join(override_words(trial.params)), f" % (n={trial.networks})" if trial.networks else ""
    text = f"trial {trial.number}: {_score(trial)}{n}: {words}"
    sys.stderr.write(sanitize(f"{text}\ntune: {finished} of {total} trials done\n"))


def _score(trial: Trial) -> str:
    if trial.value is None:
        return trial.status
    return f"{100 * trial.value:.2f}" + ("" if trial.std is None else f" ± {100 * trial.std:.2f}")
