"""`dd-bench tune`: searches on validation data, which continue after an interruption."""

import shutil

import pytest
import torch

from dd_bench.cli.tune import _parser, summary
from dd_bench.data import digits
from dd_bench.pipeline import tune
from dd_bench.records.record import load_record
from dd_bench.records.tuning import Trial, load_tuning

RUN = [
    "method=random", "dataset=digits", "model.width=8", "ipc=1", "protocol.recipe.epochs=3",
    "evaluator.num_networks=2", "runtime=plain",
]  # fmt: skip
SEARCH = [*RUN, "protocol.recipe.lr=0.001,0.1"]
STEPS = 12  # two trials of two networks of three epochs of one batch


def trials_in(folder) -> list[Trial]:
    (file,) = folder.glob("runs/tune/*/tuning.json")
    return load_tuning(file).trials


@pytest.fixture
def poisoned(monkeypatch):
    """Function that replaces the test images of digits, and makes every test label wrong."""

    def poison():
        original = digits.tensor_set

        def replaced(name, train, test, **values):
            return original(name, train, (255 - test[0], (test[1] + 1) % 10), **values)

        monkeypatch.setattr(digits, "tensor_set", replaced)

    return poison


@pytest.mark.slow  # three searches and two runs
def test_search_run_and_records(dd_bench, job, tmp_path, poisoned, terminate_at):
    """A search that is stopped and continued, with other test data, has the same trials as one that is not."""
    shown = dd_bench("tune", *SEARCH)
    assert shown.code == 0, shown.text
    (file,) = tmp_path.glob("runs/tune/*/tuning.json")
    result, expected = load_tuning(file), trials_in(tmp_path)
    assert (result.split, result.val_fraction, result.sampler) == ("validation", 0.1, "grid")
    assert [t.status for t in expected] == ["done"] * 2 and len({t.value for t in expected}) == 2
    assert (
        f"    {result.overrides()[0]}\n" in shown.text
        and f"tuning=runs/tune/{file.parent.name}" in shown.text
    )

    records = [load_record(path) for path in tmp_path.glob("runs/tune/trials/records/*.json")]
    assert {r.split for r in records} == {"validation"} and not (tmp_path / "runs" / "records").exists()

    before = job(*RUN, *result.overrides())
    assert before.tuning is None and before.split == "test"
    after = job(*RUN, f"tuning={file}")
    assert after == before.model_copy(update={"tuning": result}) and "tuning" not in after.config
    (path,) = tmp_path.glob("runs/records/*.json")  # the key is the same, and the record was completed
    assert load_record(path) == after
    assert after.real_digest == result.real_digest not in {r.real_digest for r in records}

    poisoned()
    shutil.rmtree(tmp_path / "runs")
    steps = terminate_at(STEPS // 2 + 2)  # in the middle of the second trial
    stopped = dd_bench("tune", *SEARCH)
    assert stopped.code == 143 and "To continue from there, start the same command again:" in stopped.text
    assert dd_bench("tune", *SEARCH).code == 0
    assert trials_in(tmp_path) == expected and len(steps) == STEPS


def test_nodes_are_scored_on_the_validation_split_of_their_dataset(tmp_path):
    """No training node is left out, and the validation nodes have more labels, as on Cora."""
    words = ["method=kmeans_nodes", "dataset=sbm", "ipc=1", "protocol.recipe.lr=0.001,0.1", f"out={tmp_path}"]
    search = tune.plan([*words, f"cache={tmp_path}", "runtime=plain"])
    real = search.config({"protocol.recipe.lr": 0.1}).real
    assert search.val_fraction is None and real.scored == "validation" and real.val is None
    assert (len(real.train), len(real.test)) == (100, 500)
    assert not torch.isin(real.train.index, real.test.index).any()
    assert "on Cora, 500 nodes in addition to the 140 for training" in _parser().description


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (RUN, "no override has several values, so there is nothing to search"),
        ([*SEARCH, "dataset.val_fraction=0"], "dataset.val_fraction must be in (0, 1) for a search, got 0"),
        ([*RUN, "method.lr_imgs=1,2", "method=dm"], "method.lr_imgs is not a configuration key"),
        (["method=dm,dmm", "ipc=1"], "method=dmm does not exist. Did you mean dm"),
        ([*SEARCH, "protocol=ast-legacy"], "protocol ast-legacy has selection=best_on_test"),
        (["method=mtt", "method.experts.source=x", "method.lr_img=1,2"], "method.experts.source=x: stored labels"),
        ([*SEARCH, "--name", "trials"], "the name of a study must contain only letters"),
        ([*SEARCH, "--trials", "0"], "--trials must be an integer >= 1, got 0"),
    ],
)  # fmt: skip
def test_errors(dd_bench, overrides, message):
    outcome = dd_bench("tune", *overrides)
    assert outcome.code == 1 and message in outcome.text, outcome.text


def test_values_of_a_file_and_of_overrides_must_not_conflict(dd_bench, make_tuning, tmp_path):
    file = make_tuning().save(tmp_path / "tuning.json")
    for words, message in (
        ([f"tuning={file}", "method.lr=2"], "method.lr=2: method.lr was chosen by tuning="),
        ([f"tuning={file},x.json"], "tuning must be one file"),
        (["tuning=x.json"], "tuning=x.json must be a file that dd-bench tune has written"),
    ):
        outcome = dd_bench("run", *RUN, *words)
        assert str(outcome.code).startswith(f"dd-bench: {message}"), outcome


def test_search_without_any_score_is_an_error(dd_bench, monkeypatch):
    calls = []

    def fails(config):
        calls.append(config)
        raise OSError("disk full")

    monkeypatch.setattr(tune.verbs, "run", fails)
    failed = dd_bench("tune", *SEARCH)
    assert failed.code == 1 and len(calls) == 2
    assert (
        "no trial has a score:\n  protocol.recipe.lr=" in failed.text and ": failed: disk full" in failed.text
    )


def test_table_shows_values_as_text(make_tuning):
    """Lists are not markup of rich, and the best trial comes first."""
    params = [{"teacher": "[a,b]"}, {"teacher": "[b]"}, {"teacher": "c"}]
    trials = [
        Trial(number=0, params=params[0], status="done", value=0.5),
        Trial(number=1, params=params[1], status="done", value=0.75, std=0.25, networks=3),
        Trial(number=2, params=params[2], status="diverged", reason="loss is nan"),
    ]
    shown = summary(make_tuning(space={"teacher": "x"}, trials=trials), ["ipc=1"], "my file").splitlines()
    assert [line.split() for line in shown[1:4]] == [
        ["1", "75.00", "±", "25.00", "3", "[b]", "best"],
        ["0", "50.00", "[a,b]"],
        ["2", "diverged", "c", "loss", "is", "nan"],
    ]
    assert shown[-1] == "    dd-bench run ipc=1 'tuning=my file'"
