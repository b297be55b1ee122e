"""Tests that the YAML defaults are those of the papers or of their released code."""

import pytest
from omegaconf import OmegaConf

from dd_bench.records.config_diff import shipped_yaml

STRATEGY = "color_crop_cutout_flip_scale_rotate"
DC = {
    "iterations": 1000,
    "outer": None,  # by ipc, see test_dc.py
    "inner_epochs": None,
    "lr_img": 0.1,
    "momentum_img": 0.5,
    "lr_net": 0.01,
    "batch_real": 256,
    "batch_train": 256,
    "init": "noise",
    "augment": "none",
    "norm": None,
}
DM = {
    "iterations": 20_000,
    "lr_img": 1.0,
    "momentum_img": 0.5,
    "batch_real": 256,
    "init": "real",
    "augment": STRATEGY,
    "norm": None,
}
DATADAM = {**DM, "lambda_mmd": 0.01, "scale": 100.0}
PAPERS = {
    "dc": DC,
    "dsa": {**DC, "init": "real", "augment": STRATEGY},
    "dm": DM,
    "datadam": {**DATADAM, "iterations": 8000, "batch_real": 128, "norm": "instancenorm", "power": 4.0},
    "datadam_released": {**DATADAM, "batch_real": 64, "norm": "batchnorm", "power": 1.0},
    "ncfm": {
        "iterations": 20_000,
        "lr_img": 1e-3,
        "weight_decay_img": 5e-4,
        "plateau_patience": 500,
        "batch_real": 1024,
        "num_teachers": 20,
        "frequencies": "gaussian",
        "num_frequencies": 4096,
        "alpha": 0.5,
        "scale": 300.0,
        "calibration": 1.0,
        "update": "per_class",
        "factor": 2,
        "augment": "color_crop_cutout",
        "teacher.optimizer": "sgd",
        "teacher.lr": 0.01,
        "teacher.momentum": 0.9,
        "teacher.weight_decay": 5e-4,
        "teacher.batch_size": 128,
        "teacher.epochs": 60,
        "teacher.milestones": [40, 50],
        "teacher.gamma": 0.2,
        "teacher.augment": "color_crop",
        "teacher.augment_style": "idc",
        "teacher.cutmix": 0.5,
        "teacher.cutmix_beta": 1.0,
    },
}


RELEASED = {
    "method": {
        "sre2l": {"views.roll": [0, 4], "statistics": 0.01, "lr_img": 0.25},
        "cda": {"views.roll": [0, 4], "statistics": 0.05, "lr_img": 0.4},
        "infer": {"views.roll": [0, 4], "statistics": 1.0, "lr_img": 0.25},
    },
    "teacher": {name: {"model.init": "torchvision"} for name in ("resnet18", "resnet18_tiny")},
    "model": {"resnet18_bn": {"init": "torchvision"}},
    "protocol": {
        "sre2l-kd-400-released": {"version": 1, "recipe.decay_filter": "all", "labels.teacher_mode": "train"},
        "fkd-300": {"version": 2, "recipe.decay_filter": "weights_only", "recipe.views.box": "truncated"},
        "rded-300": {"version": 2, "recipe.batchnorm_momentum": 0.19, "recipe.views.box": "truncated"},
        "dc-mnist-1000": {"recipe.epochs": 1001, "recipe.milestones": [502], "recipe.batch_size": 256},
        "dc-bn-1000": {"recipe.epochs": 1001, "recipe.milestones": [502], "recipe.batch_size": 256},
        "datadam-1800": {
            "recipe.epochs": 1801,
            "recipe.milestones": [902],
            "recipe.batch_size": 64,
            "recipe.augment": STRATEGY,
            "recipe.lr": 0.01,
            "selection": "last",
        },
        "ncfm-2000": {
            "recipe.optimizer": "adamw",
            "recipe.lr": 0.001,
            "recipe.weight_decay": 0.01,
            "recipe.batch_size": 128,
            "recipe.epochs": 2000,
            "recipe.milestones": [400, 800, 1200, 1600],
            "recipe.gamma": 0.5,
            "recipe.augment": "color_crop_flip_scale_rotate",
            "recipe.augment_style": "idc",
            "recipe.cutmix": 0.5,
            "recipe.cutmix_box": "truncated",
            "selection": "last",
        },
        "ncfm-2000-legacy": {"recipe.epochs": 2000, "selection": "best_on_test", "eval_every": 100},
    },
}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in RELEASED for name in RELEASED[group]])
def test_defaults_are_those_of_the_released_code(group, name):
    config, expected = OmegaConf.create(shipped_yaml(group, name)), RELEASED[group][name]
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


@pytest.mark.parametrize("name", PAPERS)
def test_defaults_are_those_of_the_paper(name):
    config = OmegaConf.create(shipped_yaml("method", name))
    assert {key: OmegaConf.select(config, key) for key in PAPERS[name]} == PAPERS[name]
