"""How hyper-parameters were chosen: validation of a search, its file, and its agreement with a configuration."""

import json

import pytest

from dd_bench.records.record import load_record
from dd_bench.records.tuning import Trial, load_tuning

from .test_record import record


class TestFile:
    def test_round_trip_keeps_types(self, make_tuning, tmp_path):
        loaded = load_tuning(make_tuning().save(tmp_path / "tuning.json"))
        assert loaded == make_tuning()
        assert type(loaded.best.params["method.lr"]) is int
        assert loaded.overrides() == ["method.init=real", "method.lr=1"]

    def test_errors_name_the_file(self, make_tuning, tmp_path):
        with pytest.raises(
            ValueError, match=r"tuning=.*missing\.json must be a file that dd-bench tune has written"
        ):
            load_tuning(tmp_path / "missing.json")
        path = make_tuning().save(tmp_path / "tuning.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"split": "test"}))
        with pytest.raises(ValueError, match=r"is not a valid file of dd-bench tune: split"):
            load_tuning(path)


class TestChosen:
    @pytest.mark.parametrize("chosen", [0, 2, 7])
    def test_must_be_the_trial_with_the_highest_value(self, make_tuning, chosen):
        with pytest.raises(ValueError, match="chosen must be the trial with the highest value"):
            make_tuning(chosen=chosen)

    def test_every_trial_has_every_key(self, make_tuning):
        with pytest.raises(ValueError, match=r"a value for each of method\.lr"):
            make_tuning(space={"method.lr": "0.1,1"})


class TestDifferences:
    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ({"lr": 1.0, "init": "real"}, []),
            ({"lr": 2, "init": "real"}, ["method.lr=1"]),
            ({"lr": True, "init": "real"}, ["method.lr=1"]),
            ({"init": "noise"}, ["method.init=real", "method.lr=1"]),
        ],
    )
    def test_values(self, make_tuning, method, expected):
        assert make_tuning().differences({"method": method}) == expected

    def test_choices_of_groups(self, make_tuning):
        params = {"method": "dm", "protocol": "quick", "teacher": "[b,a]", "+method.sizes": "[1,2]"}
        search = make_tuning(
            space=dict.fromkeys(params, "x"),
            trials=[Trial(number=0, params=params, status="done", value=0.5)],
            chosen=0,
        )
        config = {
            "method": {"_choice_": "dm", "sizes": [1, 2]}, "protocol": {"name": "quick"}, "teachers": {"a": 1, "b": 1}
        }  # fmt: skip
        assert search.differences(config) == []
        other = {
            "method": {"_choice_": "mtt", "sizes": [2]},
            "protocol": {"name": "dc-300"},
            "teachers": {"a": 1},
        }
        assert search.differences(other) == search.overrides()


class TestRecord:
    def test_round_trip(self, make_tuning, tmp_path):
        tuned = record([[0.5]], tuning=make_tuning())
        loaded = load_record(tuned.save(tmp_path / "r.json"))
        assert loaded == tuned and loaded.tuning == make_tuning()

    def test_records_without_it_keep_their_text(self, make_tuning, tmp_path):
        """Their digests, which are part of the names of entries, do not change."""
        text = record([[0.5]]).text()
        assert '"tuning"' not in text and '"split"' not in text
        assert '"split": "validation"' in record([[0.5]], split="validation").text()
