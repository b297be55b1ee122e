"""Reading YAML without Hydra equals Hydra's composition; conformance/test_configs.py checks every shipped file."""

from functools import cache
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dd_bench.records import config_diff
from dd_bench.records.config_diff import shipped_config, shipped_target, shipped_yaml


def test_name_without_a_file():
    for name in ("nosuch", "../config", "/etc/passwd", "mtt.yaml", "", "a" * 101, "a/", "a//b"):
        assert shipped_yaml("method", name) == shipped_config("method", name) == {}


def test_choice_replaces_target():
    mtt, ftd = shipped_config("method", "mtt"), shipped_config("method", "ftd")
    assert ftd == mtt | {"_choice_": "ftd"} | {k: ftd[k] for k in ("lr_img", "lr_teacher", "ema", "experts")}
    assert (shipped_target("method", "ftd"), shipped_yaml("method", "ftd")["_target_"]) == 2 * (
        "dd_bench.methods.ftd.FTD",
    )
    assert shipped_config("teacher", "convnet_d2_w32_bn")["model"]["_choice_"] == "convnet"


@pytest.mark.parametrize(
    ("defaults", "own"),
    [
        ("[base, _self_]", "{a: 2, deep: {x: [3]}}"),
        ("[base]", "{a: 2, deep: {y: null}}"),
        ("[_self_, base]", "{a: 2, deep: {x: [3], z: 4}, own: 5}"),
        ("[middle, _self_]", "{deep: {x: []}, b: 7}"),
        ("[base, middle, _self_]", "{own: {p: 1}}"),
        ("[middle, /other@deep.inner: one, _self_]", "{deep: {inner: {k: 9}}}"),
        ("[/other@deep.inner: one, base, override /other@_global_.other: two, _self_]", "{a: 2}"),
    ],
)
def test_defaults_lists_are_merged_in_the_order_of_hydra(tmp_path, monkeypatch, defaults, own):
    for name, text in {
        "config": "defaults: [other: one, group: base]",
        "group/base": "{a: 1, deep: {x: [1, 2], y: 1}, flag: true}",
        "group/middle": "{defaults: [base, _self_], deep: {y: 2, z: 3}, b: 6}",
        "group/nested/base": "{only: nested, a: 0}",  # not included by nested/top
        "group/nested/top": f"defaults: {defaults}\n",
        "group/top": f"defaults: {defaults}\n",
        "other/one": "{k: 1, l: 2}",
        "other/two": "{k: 3}",
    }.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + (OmegaConf.to_yaml(OmegaConf.create(own)) if name.endswith("top") else ""))
    monkeypatch.setattr(config_diff, "resources", SimpleNamespace(files=lambda _: tmp_path))
    for reader in (shipped_yaml, shipped_config):
        monkeypatch.setattr(config_diff, reader.__name__, cache(reader.__wrapped__))
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        for name in ("top", "nested/top"):
            expected = OmegaConf.to_container(compose("config", [f"group={name}"]).group)
            assert config_diff.shipped_yaml("group", name) == expected
