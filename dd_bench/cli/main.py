"""`dd-bench COMMAND ...`: four Hydra applications, and commands that read, check or copy their outputs."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from dd_bench.cli import SWEEP
from dd_bench.cli.commands import HYDRA_COMMANDS, LEADERBOARD_COMMANDS, OTHER_COMMANDS
from dd_bench.runtime import interruption

LAUNCHERS = {"cores": "joblib", "processes": "submitit", "slurm": "submitit", "cluster": "ray", "gpus": "ray"}
"""Libraries of the launchers in `conf/hydra/launcher`; the extra `launchers` installs them."""

USAGE = (
    "usage: dd-bench COMMAND ...\n\n"
    + "\n".join(
        f"  {name:<12} {text}"
        for name, text in [*HYDRA_COMMANDS.items(), *((c, t) for c, (_, t) in OTHER_COMMANDS.items())]
    )
    + """

  dd-bench run method=dm dataset=fashion_mnist model.width=32 ipc=10 protocol=dc-300
  dd-bench run -m method=random,dm ipc=1,10       a sweep; when restarted, it repeats no finished work
  dd-bench run -m --only-missing ...              the same sweep, without launching its finished jobs
  dd-bench tune method=dm 'method.lr_img=0.1,1,10'    search on validation data; then: dd-bench run ... tuning=FILE
  dd-bench run --help                             list all groups and keys; method=dm --help adds the keys of dm
  dd-bench run method=dm --cfg job                print the composed configuration

Set the environment variable HYDRA_FULL_ERROR=1 to print the traceback of an error.
"""
)

_log = logging.getLogger(__name__)


def main() -> None:
    """Run the command; exit with 0, with 1 if a check or run failed, or with 2 for wrong usage.

    The exit status is 130 after SIGINT (Ctrl-C), 143 after SIGTERM, and 141 if the reader of a pipe has closed it.
    """
    arguments = sys.argv[1:]
    try:
        with interruption.handled(_stop_jobs):
            status = _run(arguments)
            sys.stdout.flush()
    except interruption.Interrupted as error:
        status = _interrupted(error, arguments)
    except KeyboardInterrupt:
        status = _interrupted(interruption.Interrupted(signal.SIGINT), arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the stream at exit
        status = 128 + signal.SIGPIPE
    except Exception:
        if (number := interruption.delivered()) is None:
            raise
        # the signal came during an import, and the module that was half imported caused another error
        status = _interrupted(interruption.Interrupted(number), arguments)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        sys.stdout.write(USAGE)
        return 0 if arguments else 2
    if command == "--version":
        from dd_bench import __version__

        sys.stdout.write(f"dd-bench {__version__}\n")
        return 0
    if command in OTHER_COMMANDS:
        from hydra.utils import get_method  # by name, because the core must not import leaderboards

        return int(get_method(OTHER_COMMANDS[command][0])(arguments[1:]))
    if command in HYDRA_COMMANDS and {"--help", "-h"} & set(arguments):
        from dd_bench.cli.run_help import run_help

        sys.stdout.write(run_help(command, HYDRA_COMMANDS[command], arguments[1:]))
        return 0
    if command in HYDRA_COMMANDS:
        sys.argv = [f"dd-bench {command}", *_hydra_arguments(command, arguments[1:])]
        try:
            _run_hydra(command)
        finally:
            failed = _report()
        return failed
    from dd_bench.runtime.suggestions import did_you_mean

    near = did_you_mean(get_close_matches(command, [*HYDRA_COMMANDS, *OTHER_COMMANDS], 1))
    if command in LEADERBOARD_COMMANDS:
        near = did_you_mean([f"dd-bench leaderboard {command}"])
    sys.stderr.write(f"dd-bench: unknown command {command!r}{near}\n\n{USAGE}")
    return 2


def _interrupted(stopped: interruption.Interrupted, arguments: list[str]) -> int:
    """Print what is kept of a stopped command, and how to continue. Return the exit status."""
    name = signal.Signals(stopped.number).name
    lines = [f"\nstopped by {'Ctrl-C' if name == 'SIGINT' else name}."]
    if arguments[:1] and arguments[0] in (*HYDRA_COMMANDS, "tune"):
        kept = "Kept: finished sets, scores of finished networks, finished teachers and experts"
        lines.append(f"{kept}, and {stopped.saved or 'the last checkpoint'}.")
        lines.append("To continue from there, start the same command again:")
        lines.append(f"    dd-bench {shlex.join(arguments)}")
    else:
        lines.append("No complete file was changed. Start the same command again.")
    sys.stderr.write("\n".join(lines) + "\n")
    return stopped.exit_code


def _stop_jobs() -> None:
    """Stop the jobs of a sweep in other processes of this machine, and wait until they have saved their state."""
    if sweep := os.environ.get(SWEEP):
        from dd_bench.cli.jobs import stop_jobs

        stop_jobs(Path(sweep))


def _hydra_arguments(command: str, arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra, without `--only-missing` and with the command as the job name."""
    from dd_bench.pipeline.tuned_overrides import with_tuned_values

    os.environ.pop(SWEEP, None)  # set if a job of another sweep started this process
    try:
        args = with_tuned_values([a for a in arguments if a != "--only-missing"])
    except ValueError as error:
        raise SystemExit(f"dd-bench: {error}") from error
    sweep = bool({"-m", "--multirun"} & set(args))
    only_missing = "--only-missing" in arguments
    if only_missing and not sweep:
        raise SystemExit("dd-bench: --only-missing requires a sweep; add -m")
    for arg in args:
        key, _, launcher = arg.partition("=")
        if key == "hydra/launcher" and (library := _missing_library(launcher)):
            raise SystemExit(
                f"dd-bench: {arg} requires {library}, which is not installed. Use: pip install 'dd-bench[launchers]'"
            )
    if sweep:
        from dd_bench.cli.hydra_patch import UnsupportedHydraError
        from dd_bench.cli.sweep_overrides import defer_to_jobs
        from dd_bench.cli.sweeps import select_jobs

        try:
            select_jobs(command, only_missing)
        except UnsupportedHydraError as error:
            raise SystemExit(f"dd-bench: {error}") from error
        args = defer_to_jobs(args)
    # insert after the last override: Hydra requires all overrides to be adjacent
    last = max((i for i, a in enumerate(args) if "=" in a and not a.startswith("-")), default=-1)
    return [*args[: last + 1], f"hydra.job.name={command}", *args[last + 1 :]]


def _missing_library(launcher: str) -> str | None:
    """Return the name of the library that a launcher requires, or None if the library is installed."""
    library = LAUNCHERS.get(launcher, launcher.partition("_")[0])
    plugin = f"hydra_{library}_launcher"
    installed = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{plugin}")
    return plugin.replace("_", "-") if library in LAUNCHERS.values() and not installed else None


def _report() -> int:
    """Print the report of the sweep if the command ran one. Return 1 if a job of the sweep has failed, else 0."""
    if sweep := os.environ.get(SWEEP):
        from dd_bench.cli.progress import has_failed, report

        sys.stderr.write(report(Path(sweep)) + "\n")
        return int(has_failed(Path(sweep)))
    return 0


def _run_hydra(command: str) -> None:
    """Run a command as a Hydra application. Exit with status 1 if it fails.

    Errors caused by user input are printed without a traceback. In a sweep, an error does not stop the other jobs. The
    first error is raised at the end of the sweep.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import CompactHydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from dd_bench.cli import hydra_patch
    from dd_bench.cli.jobs import mark_interrupted
    from dd_bench.pipeline.choices import check_choices, check_searchpath, ignore_missing_init
    from dd_bench.pipeline.config_errors import check_hydra_keys
    from dd_bench.runtime.files import writable_hint
    from dd_bench.runtime.progress import bars

    failures: list[str] = []
    launcher = os.getpid()

    def guarded(cfg: DictConfig) -> object:
        hydra_config = HydraConfig.get()
        in_sweep, overrides = hydra_config.mode == RunMode.MULTIRUN, list(hydra_config.overrides.task)
        try:
            # a launcher may run the job in another process, where several jobs would draw bars at the same time
            with bars(os.getpid() == launcher), interruption.handled():
                return execute(cfg, in_sweep, overrides)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            number = interruption.delivered()
            if isinstance(error, Exception) and number is None:
                raise
            # a signal, or an error of an import that it has interrupted; submitit exits to start a job again
            if in_sweep:
                mark_interrupted(Path(str(cfg.out)), command, overrides)
            if isinstance(error, Exception) and number is not None:
                raise interruption.Interrupted(number) from error
            raise

    def execute(cfg: DictConfig, in_sweep: bool, overrides: list[str]) -> object:
        if not in_sweep:  # the jobs of a sweep are checked before it starts
            try:
                check_hydra_keys(HydraConfig.get())
            except ValueError as error:
                failures.append(str(error))
                return None
        # imported here because they import torch, which --help, --cfg and misspelt keys do not need
        from dd_bench.pipeline import run
        from dd_bench.pipeline.compose import USER_ERRORS, RunConfig
        from dd_bench.runtime import distributed

        if command != "prepare" and distributed.num_launched() > 1:
            raise CompactHydraException(
                f"under torchrun, dd_bench supports only the command prepare, got {command}. "
                f"Use: torchrun -m dd_bench prepare ..., then dd-bench {command} ..."
            )
        try:
            for key in ("set", "base") if command == "evaluate" else ("base",):
                if "://" in str(cfg.get(key)):
                    from dd_bench.hub.hub import pull

                    cfg[key] = str(pull(cfg[key]))
            choices = HydraConfig.get().runtime.choices
            return getattr(run, command)(RunConfig(cfg, choices, in_sweep))
        except USER_ERRORS as error:
            message = writable_hint(error)
            if in_sweep:
                _log.error("%s: %s", " ".join(overrides), message)
            elif os.environ.get("HYDRA_FULL_ERROR") != "1":
                failures.append(message)  # Hydra would print the overrides and advice about tracebacks
                return None
            raise CompactHydraException(message) from error

    try:
        check_searchpath(sys.argv[1:])
        check_choices(sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    ignore_missing_init()
    application = hydra.main(version_base="1.3", config_path="pkg://dd_bench.conf", config_name="config")
    with hydra_patch.errors_explained(_explained):
        application(guarded)()
    if failures:
        sys.stderr.write(f"error: {failures[0]}\n")
        sys.exit(1)


def _explained(error: Exception) -> str | None:
    """Return the message of an error caused by user input, or None for a bug, whose traceback Hydra prints."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import CompactHydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from dd_bench.pipeline.config_errors import COMPOSITION_ERRORS, explain
    from dd_bench.runtime.files import writable_hint

    if isinstance(error, BrokenPipeError):
        raise error
    if type(error) is CompactHydraException:  # raised by this package; errors of Hydra have a subclass
        return str(error)
    if not isinstance(error, COMPOSITION_ERRORS):  # some of these are OSErrors too
        # Hydra could not write its log. Other errors of the file system are caught in the job.
        return writable_hint(error, writing=True) if isinstance(error, OSError) else None

    def composed(overrides: list[str]) -> DictConfig:
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", overrides, RunMode.MULTIRUN)

    return explain(error, [a for a in sys.argv[1:] if "=" in a and not a.startswith("-")], composed)
