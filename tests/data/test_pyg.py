"""The import of PyTorch Geometric, in a process that has not imported it."""


def test_importing_pyg_prints_no_warning(fork, tmp_path):
    """PyG's import causes deprecation warnings of torch, which users cannot fix."""
    check = "import sys; assert 'torch_geometric' not in sys.modules\n"
    process = fork(check + "from dd_bench.data.pyg import import_pyg; import_pyg('nn')")
    assert process.wait(timeout=120) == 0 and "Warning" not in (tmp_path / "printed.txt").read_text()
