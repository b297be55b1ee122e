"""`dd-bench run --help` and `evaluate --help`: keys, groups and their comments, without torch."""

from dd_bench.cli.run_help import run_help, yaml_keys


def test_help_of_run(dd_bench):
    done = dd_bench("run", "--help")
    assert done.code == 0
    for text in (
        "ipc=10 ",
        "images per class",
        "log_images_every=null",
        "method=dm ",
        "the distillation method",
    ):
        assert text in done.text
    assert "hydra:" not in done.text and "\n  defaults" not in done.text


def test_keys_of_a_selected_group(dd_bench):
    """With the keys that its file includes; the file's own value replaces the included one."""
    text = dd_bench("run", "method=dsa", "--help").text
    assert "method.lr_net=0.01" in text and "learning rate of the network" in text
    assert text.count("method.augment=") == 1 and "method.augment=color_crop" in text
    assert "method=dmm does not exist. To list all: dd-bench list method" in run_help(
        "run", "", ["method=dmm"]
    )


def test_help_of_evaluate(dd_bench):
    text = dd_bench("evaluate", "--help").text
    assert "set=FOLDER or set=URL (required)" in text and "dd-bench evaluate set=" in text


def test_nested_keys():
    text = """# title
defaults:
  - a
_target_: x
lr: 0.1     # learning rate
recipe:
  epochs: 5   # epochs
  views: {pad: 4}
last: null
"""
    assert list(yaml_keys(text, "method.")) == [
        ("method.lr=0.1", "learning rate"),
        ("method.recipe.epochs=5", "epochs"),
        ("method.recipe.views={pad: 4}", ""),
        ("method.last=null", ""),
    ]
