"""Which process runs which test file, and in which order. The fixtures are in fixtures.py."""

import gc
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

# decoded images of the tests; the processes that tests start inherit it
os.environ["DD_BENCH_HOME"] = tempfile.mkdtemp(prefix="dd_bench-tests-")

# Hypothesis imports its plug-in for trio, which takes more than a second in every process.
os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"

# Files that import PyG, and files that start the fork server. Each group runs in one process, because the start takes
# five to ten seconds.
GRAPHS = (
    "cli/test_sweeps",
    "conformance/test_evaluators",
    "conformance/test_graph_methods",
    "conformance/test_node_methods",
    "data/test_class_subset",
    "data/test_graphs",
    "data/test_shifts",
    "device/test_counts",
    "device/test_node_networks",
    "device/test_resume",
    "evaluators/test_graph",
    "evaluators/test_prefixes",
    "hub/importers/test_import_command",
    "hub/test_export",
    "integration/test_fuzz",
    "integration/test_python_api",
    "methods/test_coresets",
    "methods/test_geom",
    "methods/test_golden",
    "methods/test_mirage",
    "models/test_gnn",
    "models/test_node_networks",
    "synthetic/test_storage",
)
FORKS = (
    "data/test_pyg",
    "evaluation/test_fresh_networks",
    "hub/test_hub",
    "integration/test_full_disk",
    "integration/test_resume",
    "integration/test_run",
    "records/test_identity",
    "runtime/test_cache",
    "runtime/test_workers",
    "teachers/test_expert_buffer",
    "teachers/test_experts",
)
FIRST = (*GRAPHS, *FORKS, "docs/test_tour", "leaderboards/test_browser", "docs/test_example_plugin")


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, except in the process that only distributes the tests: they import torch."""
    if not config.getoption("numprocesses", None):
        from . import compose_cache, fixtures

        for module in (fixtures, compose_cache):
            config.pluginmanager.register(module, module.__name__)


def file_of(nodeid: str) -> str:
    """Return e.g. `data/test_graphs` for a test of tests/data/test_graphs.py."""
    return nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Keep the garbage collector from searching the imported modules, and start it less often than by default."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process runs one of them alone at the end."""
    items.sort(key=lambda item: file_of(item.nodeid) not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the files of a group in one process. This requires `--dist loadfile`."""
    from xdist.scheduler import LoadFileScheduling

    class FileScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = file_of(nodeid)
            return "graphs" if file in GRAPHS else "forks" if file in FORKS else file

    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # it would sort the files by their number of tests
    return FileScheduling(config, log)
