"""Unknown keys below `hydra.` and folders of `hydra.searchpath` that do not exist are refused."""

import warnings

import pytest
from hydra import compose, initialize_config_module

from dd_bench.pipeline.choices import check_searchpath
from dd_bench.pipeline.compose import RunConfig
from dd_bench.pipeline.config_errors import check_hydra_keys

RUN = ["run", "method=random", "dataset=digits", "ipc=1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+hydra.foo=1", "hydra.foo is not a configuration key"),
        ("++hydra.run.dirr=x", "hydra.run.dirr is not a configuration key. Did you mean hydra.run.dir"),
        ("+hydra.job.config.override_dirname.sep=x", "hydra.job.config.override_dirname.sep is not a"),
        ("+hydra.launcher.jobs=1", "hydra.launcher.jobs is not a configuration key"),
    ],
)
def test_unknown_keys_of_hydra_are_refused(dd_bench, tmp_path, override, message):
    done = dd_bench(*RUN, override)
    assert done.code == 1 and message in done.text
    assert not (tmp_path / "runs" / "records").exists()
    with pytest.raises(ValueError, match="is not a configuration key"):
        RunConfig.of([*RUN[1:], override])


def test_unknown_keys_of_hydra_are_refused_in_sweeps(dd_bench):
    done = dd_bench("run", "-m", *RUN[1:], "seed=0,1", "++hydra.sweep.dirr=x")
    assert (
        "hydra.sweep.dirr is not a configuration key. Did you mean" in done.text
        and "0 of 2 done" in done.text
    )


def test_keys_of_hydra_and_its_plugins_are_accepted():
    words = [
        "+hydra.job.env_set.A=b",
        "hydra/job_logging=disabled",
        "hydra.run.dir=x",
        "+hydra.callbacks.a.b=c",
    ]
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        check_hydra_keys(compose("config", words, return_hydra_config=True).hydra)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("pkg://nopkg.conf", "pkg://nopkg.conf is not an installed package"),
        ("pkg://dd_bench.conf.nothing", "pkg://dd_bench.conf.nothing is not an installed package"),
        ("file:///nowhere", "file:///nowhere does not exist"),
        ("nowhere", "nowhere does not exist"),
        ("web://x", "a folder must be pkg://"),
    ],
)
def test_missing_folders_of_the_search_path_are_refused(dd_bench, folder, message):
    done = dd_bench(*RUN, f"hydra.searchpath=[{folder}]")
    assert done.code == 1 and message in done.text and "warn" not in done.text.lower()
    with pytest.raises(ValueError, match=r"hydra\.searchpath"):
        RunConfig.of([*RUN[1:], f"hydra.searchpath=[{folder}]"])


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("experiment=null", "To select none, leave out experiment=. To list all: dd-bench list experiment"),
        ("method=5", "To list all: dd-bench list method"),
        ("teacher=convnet,null", "To select none, leave out teacher=."),
    ],
)
def test_a_choice_must_be_a_name(dd_bench, wrong, advice):
    with pytest.raises(ValueError, match="must be the name of a file in conf/") as error:
        RunConfig.of([*RUN[1:], wrong])
    assert advice in str(error.value)
    if "," not in wrong:
        done = dd_bench(*RUN, wrong)
        assert done.code == 1 and done.text.startswith("error: ") and advice in done.text
        assert "Traceback" not in done.text


def test_packages_without_init_are_silent(tmp_path, monkeypatch):
    """Hydra reads their files, but warns that they are not available."""
    folder = tmp_path / "quiet_package" / "conf" / "method"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [random]")
    monkeypatch.syspath_prepend(str(tmp_path))
    search = "hydra.searchpath=[pkg://quiet_package.conf]"
    check_searchpath([search])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RunConfig.of([search, "method=mine"]).choices["method"] == "mine"
