"""Access to the private API of Hydra 1.3. No other module imports `hydra._internal`.

Hydra has no hook between expanding the overrides of a sweep and launching its jobs, and it accepts sweepers only from
its own packages. So this module replaces `BasicSweeper.split_arguments`, after checking the signature of this function.
Hydra has no hook for its error messages either, so this module replaces `run_and_report`, which prints them.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn

SUPPORTED = "1.3"
_SWEEPER = "hydra._internal.core_plugins.basic_sweeper"
_REPORTER = "hydra._internal.utils"
_PARAMETERS = ["overrides", "max_batch_size"]

Jobs = list[list[str]]
"""The overrides of each job of a sweep."""


class UnsupportedHydraError(RuntimeError):
    """The private API of the installed Hydra differs from that of Hydra 1.3."""


def check_hydra() -> None:
    """Check the version of Hydra and the private functions and fields that this module uses.

    Raises:
        UnsupportedHydraError: they differ from Hydra 1.3. The message describes the difference and how to install a
            supported version.
    """
    found = f"hydra-core {hydra.__version__}"
    install = f"Use: pip install 'hydra-core=={SUPPORTED}.*'"
    if not hydra.__version__.startswith(f"{SUPPORTED}."):
        raise UnsupportedHydraError(f"sweeps need hydra-core {SUPPORTED}, found {found}. {install}")
    try:
        split = inspect.getattr_static(_basic_sweeper(), "split_arguments")
    except (ImportError, AttributeError) as error:
        raise UnsupportedHydraError(
            f"{found} has no BasicSweeper.split_arguments: {error}. {install}"
        ) from error
    if not isinstance(split, staticmethod) or list(inspect.signature(split).parameters) != _PARAMETERS:
        raise UnsupportedHydraError(
            f"BasicSweeper.split_arguments of {found} must be a static method with the parameters "
            f"{', '.join(_PARAMETERS)}. {install}"
        )
    if "_return_value" not in {field.name for field in fields(JobReturn)}:
        raise UnsupportedHydraError(f"JobReturn of {found} has no _return_value. {install}")


def split_jobs(overrides: list[Override]) -> Jobs:
    """Return the overrides of every job, as Hydra's basic sweeper expands them."""
    (jobs,) = _original_split()(overrides, None)
    return jobs


def select_jobs(
    select: Callable[[list[str], Jobs], Jobs], loader: Callable[[], ConfigLoader | None] = lambda: None
) -> None:
    """Make later sweeps of this process launch only the jobs that `select(overrides, jobs)` returns.

    `loader()` returns the loader that lists the files for `glob(...)`; None for Hydra's own loader.
    """
    check_hydra()
    _original_split()  # caches Hydra's function before it is replaced below

    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[Jobs]:
        for override in overrides:
            override.config_loader = loader() or override.config_loader
        selected = select([str(o.input_line) for o in overrides], split_jobs(overrides))
        size = max_batch_size or len(selected) or 1
        return [selected[i : i + size] for i in range(0, len(selected), size)]

    Plugins.instance()  # the first call imports the sweeper's module again, which would undo the replacement
    _basic_sweeper().split_arguments = staticmethod(split_arguments)


@contextmanager
def errors_explained(explain: Callable[[Exception], str | None]) -> Iterator[None]:
    """Inside the context, print `explain(error)` instead of Hydra's message for an error, and exit with status 1.

    Hydra reports an error for which `explain` returns None, and every error if HYDRA_FULL_ERROR=1 is set.
    """
    module: Any = import_module(_REPORTER)
    original = module.run_and_report

    def run_and_report(function: Callable[[], Any]) -> Any:
        def explained() -> Any:
            try:
                return function()
            except Exception as error:
                message = None if os.environ.get("HYDRA_FULL_ERROR") == "1" else explain(error)
                if message is None:
                    raise
                sys.stderr.write(f"error: {message}\n")
                sys.exit(1)

        return original(explained)

    module.run_and_report = run_and_report
    try:
        yield
    finally:
        module.run_and_report = original


def complete_overrides(line: str) -> list[str]:
    """Return the words that Hydra suggests for the last word of a line of overrides, or [] for a wrong line."""
    plugin: Any = import_module("hydra.plugins.completion_plugin").DefaultCompletionPlugin
    try:
        with hydra.initialize_config_module("dd_bench.conf", version_base="1.3"):
            found: list[str] = plugin(GlobalHydra.instance().config_loader())._query("config", line)
            return found
    except (Exception, SystemExit):  # a shell shows no message while a line is typed
        return []


def task_result(job: JobReturn) -> Any:
    """Return the result of the task, or the exception that it raised.

    The public `JobReturn.return_value` would print the overrides and raise the exception.
    """
    return job._return_value


def _basic_sweeper() -> Any:
    return import_module(_SWEEPER).BasicSweeper


@cache
def _original_split() -> Callable[[list[Override], int | None], list[Jobs]]:
    check_hydra()
    split: Callable[[list[Override], int | None], list[Jobs]] = _basic_sweeper().split_arguments
    return split
