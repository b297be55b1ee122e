"""`dd-bench VERB ...`: four verbs that Hydra composes, and a few for what they left behind."""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

SWEEP = "DD_BENCH_SWEEP"
"""Variable of the environment with the file of the sweep that runs: jobs in other processes inherit it."""

LAUNCHERS = {"cores": "joblib", "processes": "submitit", "slurm": "submitit", "cluster": "ray", "gpus": "ray"}
"""Libraries of the launchers in `conf/hydra/launcher`, which the extra `launchers` brings."""

HYDRA_VERBS = {
    "run": "distil, evaluate with fresh networks, record",
    "prepare": "build what a method shares between runs (teachers, expert buffers), and stop",
    "distill": "distil and save the synthetic set, and stop",
    "evaluate": "score a saved set: dd-bench evaluate set=FOLDER",
}
OTHER_VERBS = {
    "progress": ("dd_bench.cli.sweeps.progress_verb", "how far sweeps are, and what failed"),
    "list": ("dd_bench.cli.inspect.list_choices", "what there is: methods, datasets, models, protocols, ..."),
    "show": ("dd_bench.cli.inspect.show", "print a record, or a synthetic set with its pictures"),
    "verify": (
        "dd_bench.leaderboards.admission.verify.main",
        "check sets, records and entries, and train networks of an entry anew",
    ),
    "push": ("dd_bench.hub.hub.push_verb", "copy a set to a folder elsewhere: dd-bench push SET URL"),
    "pull": ("dd_bench.hub.hub.pull_verb", "fetch a set, and check it: dd-bench pull URL"),
    "import": ("dd_bench.hub.importers.import_verb", "make a set of files that others released"),
    "export": ("dd_bench.hub.export.export_verb", "write a set as PNG files or Parquet"),
    "leaderboard": (
        "dd_bench.leaderboards.cli.main",
        "build tables from records, add a record, check entries",
    ),
}

USAGE = (
    "usage: dd-bench VERB ...\n\n"
    + "\n".join(
        f"  {verb:<12} {text}"
        for verb, text in [*HYDRA_VERBS.items(), *((v, t) for v, (_, t) in OTHER_VERBS.items())]
    )
    + """

  dd-bench run method=dm dataset=fashion_mnist model.width=32 ipc=10 protocol=dc-300
  dd-bench run -m method=random,dm ipc=1,10       a sweep; started again, it does only what is missing
  dd-bench run -m --only-missing ...              the same, and launches nothing else
  dd-bench run --help                             every group and key; --cfg job shows the composed configuration

HYDRA_FULL_ERROR=1 in the environment shows where an error comes from.
"""
)

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of the command; exits with 0, 1 for a failed check or run, 2 for wrong usage."""
    arguments = sys.argv[1:]
    verb = arguments[0] if arguments else "--help"
    if verb in ("--help", "-h", "help"):
        sys.stdout.write(USAGE)
        sys.exit(0 if arguments else 2)
    if verb == "--version":
        from dd_bench import __version__

        sys.stdout.write(f"dd-bench {__version__}\n")
        return
    if verb in OTHER_VERBS:
        from hydra.utils import get_method  # plug-ins are reached by name alone

        sys.exit(get_method(OTHER_VERBS[verb][0])(arguments[1:]))
    if verb in HYDRA_VERBS:
        sys.argv = [f"dd-bench {verb}", *_prepared(verb, arguments[1:])]
        try:
            _hydra(verb)
        finally:
            failed = _report()
        if failed:
            sys.exit(1)
        return
    sys.stderr.write(f"dd-bench: there is no verb {verb!r}\n\n{USAGE}")
    sys.exit(2)


def _prepared(verb: str, arguments: list[str]) -> list[str]:
    """Returns the arguments for Hydra, which knows the verb as the name of its job; `--only-missing` is not for it."""
    os.environ.pop(SWEEP, None)  # of a sweep that started this command
    words = [a for a in arguments if a != "--only-missing"]
    sweep = bool({"-m", "--multirun"} & set(words))
    only_missing = len(words) < len(arguments)
    if only_missing and not sweep:
        raise SystemExit("dd-bench: --only-missing is of sweeps. Use it with -m")
    for word in words:
        key, _, launcher = word.partition("=")
        if key == "hydra/launcher" and (library := _missing(launcher)):
            raise SystemExit(
                f"dd-bench: {word} needs {library}, which is not installed. Use: pip install 'dd-bench[launchers]'"
            )
    if sweep:
        from dd_bench.cli.sweeps import choose_jobs, for_the_jobs

        choose_jobs(verb, only_missing)
        words = for_the_jobs(words)
    # beside the other overrides: Hydra's parser wants them in one piece
    last = max((i for i, w in enumerate(words) if "=" in w and not w.startswith("-")), default=-1)
    return [*words[: last + 1], f"hydra.job.name={verb}", *words[last + 1 :]]


def _missing(launcher: str) -> str | None:
    """Returns the library that a launcher needs and that is not installed."""
    library = LAUNCHERS.get(launcher, launcher.partition("_")[0])
    plugin = f"hydra_{library}_launcher"
    there = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{plugin}")
    return plugin.replace("_", "-") if library in LAUNCHERS.values() and not there else None


def _report() -> int:
    """Says at the end of a sweep what became of its jobs, also where some failed; returns 1 if some did."""
    if sweep := os.environ.get(SWEEP):
        from dd_bench.cli.sweeps import broken, report

        sys.stderr.write(report(Path(sweep)) + "\n")
        return int(broken(Path(sweep)))
    return 0


def _hydra(verb: str) -> None:
    """Runs a verb as a Hydra application.

    An error that the user can mend is shown without a traceback. In a sweep the other jobs go on, and the sweep
    ends with the first error.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import CompactHydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig

    def guarded(cfg: DictConfig) -> object:
        from dd_bench.pipeline import run  # loads torch, which --help, --cfg and a misspelt key do without
        from dd_bench.pipeline.compose import USER_ERRORS
        from dd_bench.runtime import distributed

        if verb != "prepare" and distributed.asked() > 1:
            raise CompactHydraException(
                "error: torchrun trains teachers and experts alone: torchrun -m dd_bench prepare ... Then "
                f"dd-bench {verb} without it"
            )
        try:
            return getattr(run, verb)(cfg)
        except USER_ERRORS as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _log.error("%s: %s", " ".join(HydraConfig.get().overrides.task), error)
            raise CompactHydraException(f"error: {error}") from error

    hydra.main(version_base="1.3", config_path="pkg://dd_bench.conf", config_name="config")(guarded)()
