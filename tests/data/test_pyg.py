"""The import of PyTorch Geometric."""

import sys
import warnings

import pytest

from dd_bench.data.pyg import import_pyg


def test_warnings_during_the_import_are_not_printed(tmp_path, monkeypatch):
    """A package of that name warns as PyG does; the filters are as before afterwards."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_geometric"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "torch_geometric"
    package.mkdir()
    (package / "__init__.py").write_text("")
    warn = "import warnings\nwarnings.warn('use torch.compile', FutureWarning)\n"
    (package / "warns.py").write_text(warn)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module = import_pyg("warns")
            warnings.warn("later", FutureWarning, stacklevel=1)
    finally:
        for name in ("torch_geometric", "torch_geometric.warns"):
            sys.modules.pop(name, None)
    assert module.__name__ == "torch_geometric.warns" and [str(w.message) for w in caught] == ["later"]


@pytest.mark.slow
def test_importing_pyg_prints_no_warning(fork, tmp_path):
    """PyG's import causes deprecation warnings of torch, which users cannot fix."""
    check = "import sys; assert 'torch_geometric' not in sys.modules\n"
    process = fork(check + "from dd_bench.data.pyg import import_pyg; import_pyg('nn')")
    assert process.wait(timeout=120) == 0 and "Warning" not in (tmp_path / "printed.txt").read_text()
