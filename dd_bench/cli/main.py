"""`dd-bench VERB ...`: four Hydra applications, and verbs that read or copy what these wrote."""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

LAUNCHERS = {"cores": "joblib", "processes": "submitit", "slurm": "submitit", "cluster": "ray", "gpus": "ray"}
"""Libraries of the launchers in `conf/hydra/launcher`, which the extra `launchers` brings."""

HYDRA_VERBS = {
    "run": "distil, evaluate with fresh networks, record",
    "prepare": "build only what runs share: teachers, expert buffers",
    "distill": "only distil and save the synthetic set",
    "evaluate": "evaluate a saved set: dd-bench evaluate set=FOLDER",
}
OTHER_VERBS = {
    "progress": ("dd_bench.cli.progress.progress_verb", "progress of sweeps, and their failed jobs"),
    "list": (
        "dd_bench.cli.inspect.list_choices",
        "list methods, datasets, models, protocols, experiments, ...",
    ),
    "show": ("dd_bench.cli.inspect.show", "print a record or a synthetic set"),
    "verify": (
        "dd_bench.leaderboards.admission.verify.main",
        "check sets, records and entries; retrain networks of an entry",
    ),
    "push": ("dd_bench.hub.hub.push_verb", "upload a set: dd-bench push SET URL"),
    "pull": ("dd_bench.hub.hub.pull_verb", "download a set and check it: dd-bench pull URL"),
    "import": ("dd_bench.hub.importers.import_verb", "make a set from released files"),
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
  dd-bench run -m method=random,dm ipc=1,10       a sweep; started again, it skips finished work
  dd-bench run -m --only-missing ...              the same, without launching finished jobs
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
        from hydra.utils import get_method  # leaderboards is a plug-in: the core does not import it

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
    sys.stderr.write(f"dd-bench: unknown verb {verb!r}\n\n{USAGE}")
    sys.exit(2)


def _prepared(verb: str, arguments: list[str]) -> list[str]:
    """Returns the arguments for Hydra, without `--only-missing`; the verb becomes the name of its job."""
    from dd_bench.cli.jobs import SWEEP

    os.environ.pop(SWEEP, None)  # set if a job of another sweep started this command
    words = [a for a in arguments if a != "--only-missing"]
    sweep = bool({"-m", "--multirun"} & set(words))
    only_missing = len(words) < len(arguments)
    if only_missing and not sweep:
        raise SystemExit("dd-bench: --only-missing requires a sweep; add -m")
    for word in words:
        key, _, launcher = word.partition("=")
        if key == "hydra/launcher" and (library := _missing(launcher)):
            raise SystemExit(
                f"dd-bench: {word} needs {library}, which is not installed. Use: pip install 'dd-bench[launchers]'"
            )
    if sweep:
        from dd_bench.cli.hydra_patch import UnsupportedHydraError
        from dd_bench.cli.sweep_overrides import defer_to_jobs
        from dd_bench.cli.sweeps import select_jobs

        try:
            select_jobs(verb, only_missing)
        except UnsupportedHydraError as error:
            raise SystemExit(f"dd-bench: {error}") from error
        words = defer_to_jobs(words)
    # after the last override: Hydra's parser wants all overrides in one piece
    last = max((i for i, w in enumerate(words) if "=" in w and not w.startswith("-")), default=-1)
    return [*words[: last + 1], f"hydra.job.name={verb}", *words[last + 1 :]]


def _missing(launcher: str) -> str | None:
    """Returns the library that a launcher needs, if it is not installed."""
    library = LAUNCHERS.get(launcher, launcher.partition("_")[0])
    plugin = f"hydra_{library}_launcher"
    installed = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{plugin}")
    return plugin.replace("_", "-") if library in LAUNCHERS.values() and not installed else None


def _report() -> int:
    """Prints the report of the sweep that ended, if there was one; returns 1 if a job of it failed."""
    from dd_bench.cli.jobs import SWEEP
    from dd_bench.cli.progress import has_failed, report

    if sweep := os.environ.get(SWEEP):
        sys.stderr.write(report(Path(sweep)) + "\n")
        return int(has_failed(Path(sweep)))
    return 0


def _hydra(verb: str) -> None:
    """Runs a verb as a Hydra application.

    Errors caused by user input are shown without a traceback. In a sweep the other jobs continue, and the sweep ends
    with the first error.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import CompactHydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig

    def guarded(cfg: DictConfig) -> object:
        from dd_bench.pipeline import run  # imports torch, which --help, --cfg and a misspelt key do not need
        from dd_bench.pipeline.compose import USER_ERRORS
        from dd_bench.runtime import distributed

        if verb != "prepare" and distributed.num_launched() > 1:
            raise CompactHydraException(
                "error: only prepare runs under torchrun. Use: torchrun -m dd_bench prepare ..., then "
                f"dd-bench {verb} ..."
            )
        try:
            return getattr(run, verb)(cfg)
        except USER_ERRORS as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _log.error("%s: %s", " ".join(HydraConfig.get().overrides.task), error)
            raise CompactHydraException(f"error: {error}") from error

    hydra.main(version_base="1.3", config_path="pkg://dd_bench.conf", config_name="config")(guarded)()
