"""The record: statistics compared with NumPy and SciPy, serialisation, and validation."""

import json
import os

import numpy as np
import pytest
from scipy import stats

from dd_bench.records.environment import Environment
from dd_bench.records.record import Code, ProtocolId, Record, Score, load_record
from dd_bench.runtime.files import canonical, content_key, write_atomic
from dd_bench.runtime.untrusted import MAX_DEPTH, parse_json


def record(sets: list[list[float]], **changes) -> Record:
    """Return a record with one list of networks' values per set."""
    scores = [
        Score(metric="accuracy", value=v, set=s, network=n, seed=n)
        for s, values in enumerate(sets)
        for n, v in enumerate(values)
    ]
    fields = {
        "key": "k",
        "status": "done",
        "created": "2026-01-02T03:04:05+00:00",
        "method": "m",
        "dataset": "digits",
        "model": "convnet",
        "ipc": 1,
        "protocol": ProtocolId(name="quick", version=1),
        "evaluator": "accuracy",
        "selection": "last",
        "label_mode": "hard",
        "main_metric": "accuracy",
        "scores": scores,
        "config": {"ipc": 1},
        "seeds": {"run": 0},
        "real_digest": "d",
        "code": Code(version="0", numbers=1, revision=None, dirty=None),
        "device": "cpu",
        "versions": {},
    }
    return Record(**fields | changes)


ENVIRONMENT = Environment(
    device="cuda", name="NVIDIA H100", devices=2, processes=1, precision="bf16",
    flags={"backends.cuda.matmul.fp32_precision": "ieee", "are_deterministic_algorithms_enabled": True},
    torch="2.14.1+cu130", cuda="13.0", cudnn=92400, driver="580.1", threads=4, workers=1, together=20,
)  # fmt: skip


class TestEnvironment:
    def test_round_trip(self, tmp_path):
        r = record([[0.5]], environment=ENVIRONMENT)
        loaded = load_record(r.save(tmp_path / "r.json"))
        assert loaded == r and loaded.environment == ENVIRONMENT and loaded.schema_version == 3
        expected = "cuda, bf16; torch 2.14.1+cu130; 2 device(s); cuDNN 92400; driver 580.1; 4 thread(s)"
        assert ENVIRONMENT.summary().startswith(expected) and "deterministic true" in ENVIRONMENT.summary()
        assert "20 networks together" in ENVIRONMENT.summary() and "ieee" in ENVIRONMENT.flags_text()

    def test_records_of_version_2_have_no_environment(self, tmp_path):
        """They keep their text and therefore their digest."""
        old = record([[0.5]], schema_version=2)
        assert "environment" not in old.text()
        loaded = load_record(old.save(tmp_path / "r.json"))
        assert loaded == old and loaded.environment is None and loaded.digest == old.digest

    def test_invalid_values_are_refused(self, tmp_path):
        data = json.loads(record([[0.5]], environment=ENVIRONMENT).text())
        for name, value in (("precision", "fp16"), ("threads", -1), ("nope", 1), ("flags", {"x": 1})):
            path = tmp_path / "r.json"
            path.write_text(json.dumps(data | {"environment": data["environment"] | {name: value}}))
            with pytest.raises(ValueError, match=rf"environment\.{name}"):
                load_record(path)


class TestSummary:
    def test_networks_of_one_set(self):
        values = [0.5, 0.52, 0.55, 0.49, 0.61]
        s = record([values]).summary()
        assert s.mean == pytest.approx(np.mean(values))
        assert [s.std, s.std_networks] == pytest.approx([np.std(values, ddof=1)] * 2)
        assert s.std_sets is None and (s.num_sets, s.num_networks) == (1, 5)
        low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
        assert (s.ci_low, s.ci_high) == pytest.approx((low, high), rel=1e-12)

    def test_sets_are_the_independent_units(self):
        """Networks on one set are not independent, so the interval is computed from the set means."""
        sets = [[0.5, 0.52, 0.54], [0.6, 0.63, 0.6], [0.4, 0.45, 0.41], [0.52, 0.5, 0.57]]
        s, means = record(sets).summary(), [np.mean(v) for v in sets]
        assert s.mean == pytest.approx(np.mean(means))
        assert s.std == pytest.approx(np.std(np.ravel(sets), ddof=1))
        assert s.std_networks == pytest.approx(np.sqrt(np.mean([np.var(v, ddof=1) for v in sets])))
        assert s.std_sets == pytest.approx(np.std(means, ddof=1))
        low, high = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
        assert (s.ci_low, s.ci_high) == pytest.approx((low, high))
        assert (s.num_sets, s.num_networks) == (4, 12)

    def test_sets_of_unequal_size(self):
        sets = [[0.5], [0.6, 0.63, 0.7], [0.4, 0.45]]
        s = record(sets).summary()
        assert s.mean == pytest.approx(np.mean([np.mean(v) for v in sets])), "sets have equal weights"
        squares = sum(np.sum((np.array(v) - np.mean(v)) ** 2) for v in sets)
        assert s.std_networks == pytest.approx(np.sqrt(squares / 3)), "pooled over n_i - 1"

    def test_equal_sets_are_one_set(self):
        """A selection of all training images gives the same set for every seed, so the networks are the sample."""
        one, three = (record([[0.5, 0.52, 0.54]] * n) for n in (1, 3))
        assert three.has_one_set("accuracy") and three.sample() == pytest.approx(one.sample())
        s, expected = three.summary(), one.summary()
        assert (s.mean, s.ci_low, s.ci_high) == pytest.approx(
            (expected.mean, expected.ci_low, expected.ci_high)
        )
        assert (s.num_sets, s.num_networks) == (3, 9)
        assert record([[0.5], [0.5]]).summary().ci_low is None, (
            "two equal values are no estimate of the spread"
        )
        assert not record([[0.5, 0.52], [0.52, 0.5]]).has_one_set("accuracy")

    def test_one_network_has_no_standard_deviation(self):
        s = record([[0.7]]).summary()
        assert (s.mean, s.std, s.std_networks, s.std_sets, s.ci_low, s.ci_high) == (
            0.7,
            None,
            None,
            None,
            None,
            None,
        )
        s = record([[0.7], [0.8]]).summary()
        assert s.std_networks is None and s.std_sets == s.std and s.ci_low is not None

    def test_interval_of_a_share_is_clipped(self):
        s = record([[0.7, 0.99]]).summary()
        assert (s.ci_low, s.ci_high) == (0.0, 1.0), "Student's t with one degree of freedom is wide"
        s = record([[0.7, 0.99]], main_metric="loss").summary("accuracy")
        assert s.ci_low < 0 and s.ci_high > 1, "a record of a loss is not clipped"

    def test_order_of_scores_does_not_matter(self):
        a = record([[0.1, 0.2], [0.3, 0.5]])
        assert a.model_copy(update={"scores": a.scores[::-1]}).summary() == a.summary()

    def test_several_metrics(self):
        r = record([[0.1, 0.2]])
        extra = [Score(metric="robust", value=0.05, set=0, network=n, seed=n) for n in range(2)]
        r = r.model_copy(update={"scores": [*r.scores, *extra]})
        assert r.metrics == ["accuracy", "robust"] and r.summary("robust").mean == 0.05
        assert r.summary().mean == pytest.approx(0.15)

    def test_record_without_scores(self):
        with pytest.raises(ValueError, match=r"\(skipped\) has no score 'accuracy'"):
            record([], status="skipped", reason="no").summary()


class TestText:
    def test_round_trip(self, tmp_path):
        r = record([[0.1, 1 / 3], [0.2, 2 / 3]], notes=["naïve ±"], reason=None)
        assert load_record(r.save(tmp_path / "a" / "r.json")) == r
        assert load_record(tmp_path / "a" / "r.json").digest == r.digest

    def test_digest_depends_only_on_the_content(self):
        a = record([[0.1]], config={"x": 1, "ipc": 1})
        assert a.digest == record([[0.1]], config={"ipc": 1, "x": 1}).digest and len(a.digest) == 64
        assert a.digest != a.model_copy(update={"notes": ["x"]}).digest

    def test_text_is_stable(self):
        text = record([[0.1]]).text()
        keys = list(json.loads(text))
        assert keys == sorted(keys) and text.endswith("}\n") and text == record([[0.1]]).text()

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="finite"):
            record([[float("nan")]])
        with pytest.raises(ValueError, match="JSON"):
            canonical({"lr": float("inf")})


class TestInvalidRecords:
    @pytest.fixture
    def path(self, tmp_path):
        return record([[0.1, 0.2]]).save(tmp_path / "r.json")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"surprise": 1}, "surprise"),
            ({"published": 0.9}, "published"),
            ({"status": "great"}, "status"),
            ({"selection": "best"}, "selection"),
            ({"ipc": 0}, "ipc"),
            ({"ipc": "many"}, "ipc"),
            ({"scores": [{"metric": "a", "value": "high", "set": 0, "network": 0, "seed": 0}]}, "value"),
            ({"scores": [{"metric": "a", "value": 0.5, "set": -1, "network": 0, "seed": 0}]}, "set"),
            ({"scores": [{"metric": "a", "value": 0.5, "set": 0, "network": 0, "seed": 0, "x": 1}]}, "x"),
            ({"protocol": {"name": "quick"}}, "version"),
            ({"code": None}, "code"),
            ({"schema_version": 99}, "schema_version must be 2 or 3, got 99"),
            ({"schema_version": None}, "schema_version must be 2 or 3, got None"),
        ],
    )
    def test_invalid_fields(self, path, change, message):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=f"{path}.*(\n.*)*{message}"):
            load_record(path)

    def test_types_are_exact(self, path):
        """A string or a boolean is not converted to a number."""
        for change in ({"ipc": "1"}, {"ipc": True}, {"ipc": 1.0}, {"teacher_forwards": "0"}):
            data = json.loads(path.read_text()) | change
            (path.parent / "other.json").write_text(json.dumps(data))
            with pytest.raises(ValueError, match=f"{next(iter(change))}: Input should be a valid integer"):
                load_record(path.parent / "other.json")

    def test_special_files(self, path):
        """A link could point to a device without end."""
        (path.parent / "link.json").symlink_to("/dev/zero")
        os.mkfifo(path.parent / "fifo.json")
        for name in ("link.json", "fifo.json"):
            with pytest.raises(ValueError, match="must be a regular file, got a"):
                load_record(path.parent / name)

    def test_missing_fields(self, path):
        for field in ("method", "scores", "code", "real_digest", "config"):
            data = json.loads(path.read_text())
            del data[field]
            (path.parent / "incomplete.json").write_text(json.dumps(data))
            if field == "scores":
                assert load_record(path.parent / "incomplete.json").scores == []
            else:
                with pytest.raises(ValueError, match=f"{field}: Field required"):
                    load_record(path.parent / "incomplete.json")

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"5", b"null", b"\xff\xfe", b'{"schema_version": 2}']
    )
    def test_other_content(self, path, content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=str(path)):
            load_record(path)
        with pytest.raises(ValueError, match="is not a record"):
            load_record(path.parent / "missing.json")

    def test_truncated_record(self, path):
        data = path.read_bytes()
        for length in range(0, len(data) - 2, 97):
            path.write_bytes(data[:length])
            with pytest.raises(ValueError, match="is not a record"):
                load_record(path)


class TestWriteAtomic:
    def test_file_is_replaced(self, tmp_path):
        path = tmp_path / "deep" / "file"
        write_atomic(path, b"old")
        write_atomic(path, b"new")
        assert path.read_bytes() == b"new" and len(list(path.parent.iterdir())) == 1
        assert path.stat().st_mode & 0o777 == 0o644, "readable by others, unlike a temporary file"

    @pytest.mark.parametrize("step", ["fsync", "fdopen", "mkstemp", "replace", "chmod"])
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=type)
    def test_failure_does_not_change_the_old_file(self, tmp_path, monkeypatch, step, error):
        write_atomic(tmp_path / "file", b"old")

        def fails(*_, **__):
            raise error

        targets = {"mkstemp": "tempfile.mkstemp", "replace": "Path.replace", "chmod": "Path.chmod"}
        monkeypatch.setattr(f"dd_bench.runtime.files.{targets.get(step, f'os.{step}')}", fails)
        with pytest.raises(type(error)) as raised:
            write_atomic(tmp_path / "file", b"new")
        monkeypatch.undo()
        assert (tmp_path / "file").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
        if isinstance(error, OSError):
            assert "any existing file is unchanged" in str(raised.value) and "file" in str(raised.value)


def test_content_keys():
    assert content_key({"b": 1, "a": [1, 2]}) == content_key({"a": [1, 2], "b": 1})
    assert content_key({"a": [1, 2]}) != content_key({"a": [2, 1]}) and len(content_key({})) == 16
    # a changed key would make all stored sets and records unreachable
    assert content_key({"a": 1, "numbers": 1}) == "3d497bd9b964de9d"


class TestUnits:
    """Networks that are not independent, and metrics that are differences."""

    def test_networks_with_the_same_unit_count_once(self):
        values = {0: (0.5, 0.7), 1: (0.6, 0.8), 2: (0.1, 0.3)}
        scores = [
            Score(metric="accuracy", value=v, set=0, network=2 * unit + i, seed=i, unit=unit)
            for unit, pair in values.items()
            for i, v in enumerate(pair)
        ]
        r = record([], scores=scores)
        assert r.sample() == pytest.approx([0.6, 0.7, 0.2])
        s = r.summary()
        assert s.num_networks == 6 and (s.ci_low, s.ci_high) == pytest.approx((0.0, 1.0)), (
            "three values with a large variance"
        )

    def test_text_without_units_has_no_unit_field(self):
        without = record([], scores=[Score(metric="accuracy", value=0.5, set=0, network=0, seed=1)])
        assert "unit" not in without.text()
        assert Record.model_validate_json(without.text()) == without
        with_unit = record([], scores=[Score(metric="accuracy", value=0.5, set=0, network=0, seed=1, unit=3)])
        assert Record.model_validate_json(with_unit.text()) == with_unit

    def test_interval_of_a_difference_is_not_clipped(self):
        scores = [
            Score(metric=m, value=v, set=0, network=i, seed=i)
            for m, values in (("accuracy", (0.9, 0.9, 0.9)), ("forgetting", (-0.02, -0.01, 0.0)))
            for i, v in enumerate(values)
        ]
        s = record([], scores=scores).summary("forgetting")
        assert s.ci_low < s.mean < 0 < s.ci_high


class TestUntrustedJson:
    def test_depth(self):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            deepest = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
            parse_json(deepest.encode())
            for deeper in (f"[{deepest}]", "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "[" * 10**5):
                with pytest.raises(ValueError):
                    parse_json(deeper.encode())
        assert parse_json(b'"[[[["') == "[[[["

    def test_unpaired_surrogates_are_refused(self):
        assert parse_json(b'"\\ud83d\\ude00 \\u00e9"') == "\U0001f600 \u00e9"
        for text in (b'"\\ud83d"', b'"\\uDE00\\ud83d"', b'{"\\udfff": 1}', b'"\xed\xa0\xbd"', b'"\xff"'):
            with pytest.raises(ValueError):
                parse_json(text)

    def test_byte_order_mark_is_ignored(self):
        assert parse_json("\ufeff[1]".encode()) == parse_json("[1]".encode("utf-16")) == [1]
