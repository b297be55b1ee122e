"""Configurations in cards and records: without the folders of this machine."""

from dd_bench.records.overrides import without_local_paths


def test_folders_of_this_machine_are_removed():
    config = {
        "dataset": {"_choice_": "ogb_mol", "root": "/home/user/data", "kept": "/tmp/x", "download": True},
        "method": {"root": "kept", "experts": {"source": "/home/user/buffer"}, "list": ["/a/b", 1, None]},
        "out": "/home/user/runs",
        "cache": "/home/user/runs/cache",
    }
    before = str(config)
    assert without_local_paths(config) == {
        "dataset": {"_choice_": "ogb_mol", "root": None, "kept": None, "download": True},
        "method": {"root": "kept", "experts": {"source": "buffer"}, "list": ["b", 1, None]},
        "out": "runs",
        "cache": "cache",
    }
    assert str(config) == before


def test_default_configuration_is_unchanged():
    config = {"dataset": {"root": None}, "out": "runs", "cache": "runs/cache", "ipc": 1}
    assert without_local_paths(config) == config
    assert without_local_paths({"released": {"files": 3}}) == {"released": {"files": 3}}
