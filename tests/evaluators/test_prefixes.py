"""Tests of prefixes of a set: nested images, the fitted curve, and the IPC at which curves meet, on known curves."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.api import EvaluationContext
from dd_bench.evaluators._ipc_curve import (
    describe_enough,
    describe_equivalent,
    describe_fit,
    equivalent_ipc,
    fit_power_law,
)
from dd_bench.evaluators.accuracy import Accuracy
from dd_bench.evaluators.prefixes import Prefixes, _random, prefix
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.quantisation import Quantiser
from dd_bench.synthetic.quantised import QuantisedSet

from .conftest import notes_of, scores_by_network

IPCS = (1, 2, 5, 10, 20, 50)


def law(ipc):
    return 0.9 - 0.5 * ipc**-0.7


def test_the_fit_finds_the_parameters_of_a_power_law():
    found = fit_power_law({k: [law(k) - 0.01, law(k) + 0.01] for k in IPCS})
    assert found[:3] == pytest.approx((0.9, 0.5, 0.7), abs=1e-3) and found.residual < 1e-4
    assert found.ipc_of(law(37)) == pytest.approx(37, rel=0.02)
    assert found.ipc_of(0.95) is None, "the curve stays below its limit"
    assert fit_power_law({1: [0.5], 2: [0.6], 5: [0.7]}) is None
    assert "at least four IPCs" in describe_fit("set", {1: [0.5], 2: [0.6]})


def test_equivalent_ipc():
    curve = {1: 0.2, 10: 0.4, 100: 0.5}
    assert equivalent_ipc(curve, 0.4) == 10
    assert equivalent_ipc(curve, 0.3) == pytest.approx(10**0.5), "half way in log(IPC)"
    assert equivalent_ipc(curve, 0.1) == 1 and equivalent_ipc(curve, 0.51) is None
    assert equivalent_ipc({1: 0.2, 2: 0.6, 5: 0.4, 10: 0.7}, 0.6) == 2, (
        "the smallest IPC of a curve with a dip"
    )


NOISE = (-0.01, 0.0, 0.01, 0.005, -0.005)


def curve(offset, ipcs=IPCS, jitter=0.0):
    return {k: [law(k) + offset(k) + n + jitter * (-1) ** i for i, n in enumerate(NOISE)] for k in ipcs}


def test_from_which_ipc_a_control_is_enough():
    control = curve(lambda k: -0.05 if k < 10 else 0.0, jitter=0.004)
    text = describe_enough("kmeans", control, curve(lambda k: 0.0))
    assert text.startswith(
        "kmeans is not significantly below the set from IPC 10 on, measured up to 50 (set - kmeans"
    )
    below = describe_enough("random", curve(lambda k: -0.05), curve(lambda k: 0.0))
    assert below.startswith(
        "random is below the set at the largest measured IPC (set - random at IPC 50: 5.0 [5.0,"
    )
    again = describe_enough("random", curve(lambda k: -0.05 if k == 20 else 0.0), curve(lambda k: 0.0))
    assert "from IPC 50 on" in again, "IPC 10 is not enough, because 20 is not"
    assert "at least two networks" in describe_enough("random", {1: [0.5]}, {1: [0.6]})
    assert describe_enough("random", {}, {20: [0.6, 0.7]}) == (
        "random: no comparison with the set, because no IPC was measured for both"
    )


def test_few_networks_do_not_show_that_a_control_is_enough():
    few = {k: v[:4] for k, v in curve(lambda k: 0.0, jitter=0.004).items()}
    text = describe_enough("kmeans", few, {k: v[:4] for k, v in curve(lambda k: 0.0).items()})
    assert text.startswith("kmeans: not shown from which IPC on it is not significantly below the set")
    assert text.endswith("points, n=4)") and "at least 5 networks (set - kmeans at IPC 1: " in text
    below = {k: v[:4] for k, v in curve(lambda k: -0.05).items()}
    assert "is below the set" in describe_enough(
        "kmeans", below, {k: v[:4] for k, v in curve(lambda k: 0.0).items()}
    )


@pytest.mark.parametrize(
    "accuracy", [lambda k: 0.1, lambda k: 0.12 - 0.02 * k / 50, lambda k: 0.1 + 0.0002 * (k > 1)]
)
def test_a_curve_that_does_not_rise_has_no_fit(accuracy):
    flat = {k: [accuracy(k)] for k in IPCS}
    text = describe_fit("random", flat)
    assert (
        text.startswith("random: no fit, because the accuracy does not rise from IPC 1 to 50")
        and "ipc^" not in text
    )
    assert "extrapolated" not in describe_equivalent("random", flat, [0.3], 10)


def test_a_limit_at_its_bound_is_not_identified():
    """Accuracies that still rise by equal steps per decade have no limit below 1."""
    rising = {k: [0.55 + 0.25 * math.log10(k)] * 5 for k in IPCS[:4]}
    found = fit_power_law(rising)
    assert found.limit == pytest.approx(1, abs=1e-6) and found.residual > 0.005
    assert found.not_identified == ["limit"] and found.ipc_of(0.9) is None
    assert describe_fit("set", rising).endswith("points; the limit is not identified (at its bound 1)")
    text = describe_equivalent("random", rising, [0.9] * 5, 10)
    assert text.endswith(
        "for 5 of 5 networks; not extrapolated, because the limit of the fit is not identified"
    )
    assert fit_power_law(curve(lambda k: 0.0)).not_identified == []
    assert "not identified" not in describe_fit("set", curve(lambda k: 0.0))
    shown = "from IPC 1 on, measured up to 10"  # does not depend on a fit
    assert shown in describe_enough(
        "random", rising, {k: [v - 0.01 * i for i, v in enumerate(vs)] for k, vs in rising.items()}
    )


def test_images_per_class_that_reach_the_accuracy_of_the_set():
    control = curve(lambda k: 0.0)
    accuracies = [law(20) + n for n in NOISE]
    assert describe_equivalent("random", control, accuracies, 10) == (
        "random reaches the accuracy of the set at 20 [20, 20] images per class"
    )
    text = describe_equivalent("random", curve(lambda k: 0.0, IPCS[:4]), accuracies, 10)
    assert (
        "does not reach the accuracy of the set at IPC 10 with up to 10 images per class for 5 of 5" in text
    )
    assert "extrapolated beyond the measured range: 2" in text
    easy = describe_equivalent("random", control, [0.1] * 5, 10)
    assert "at 1 [1, 1] images per class; at most 1 for 5 of 5 networks" in easy


def test_prefixes_are_nested(blobs):
    index = blobs.train.draw(5, torch.Generator().manual_seed(0))
    syn = ImageSet.coreset(blobs, index.flatten())
    assert prefix(syn, 2).source == tuple(index[:, :2].flatten().tolist())
    assert prefix(syn, 5).identity() == syn.identity()
    soft = ImageSet.of(
        blobs, syn.images.float() / 255, F.one_hot(syn.labels, 3).flip(1).float(), "unit", lr=0.1
    )
    first = prefix(soft, 1)
    assert torch.equal(first.images, soft.images[[0, 5, 10]]) and first.lr == 0.1
    few, more = (_random(blobs, 0, k, 3).source for k in (2, 4))
    assert [more[4 * c : 4 * c + 2] for c in range(3)] == [few[2 * c : 2 * c + 2] for c in range(3)]
    assert _random(blobs, 0, 2, 4).source != few


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(**changes):
        fields = {"protocol": protocol(recipe=recipe(epochs=3))} | changes
        return EvaluationContext(
            seed=0, runtime=runtime, architecture=convnet(blobs), cache=Cache(tmp_path / "cache"), ipc=3, **fields
        )  # fmt: skip

    return make


def evaluator(**changes):
    values = {k: v for k, v in shipped_config("evaluator", "prefixes").items() if k != "_choice_"}
    values["features"] = values["features"] | {"epochs": 1, "milestones": []}
    return Prefixes(**values | {"num_networks": 2, "ipcs": [1, 5, 50]} | changes)


def test_the_whole_set_has_the_accuracy_of_the_accuracy_evaluator(blobs, make_ctx):
    syn = ImageSet.coreset(blobs, blobs.train.draw(3, torch.Generator().manual_seed(0)).flatten())
    found = scores_by_network(evaluator(), syn, blobs, make_ctx())
    expected = scores_by_network(Accuracy(num_networks=2), syn, blobs, make_ctx())
    for scores, (accuracy,) in zip(found, expected, strict=True):
        values = {s.metric: s.value for s in scores}
        assert values["accuracy"] == values["set:3"] == accuracy.value and scores[0].seed == accuracy.seed
        names = ["set:1", "set:3"] + [f"{c}:{k}" for c in ("random", "kmeans") for k in (1, 3, 5)]
        assert list(values) == ["accuracy", *names]
    resumed = make_ctx(finished=frozenset({0}))
    assert scores_by_network(evaluator(), syn, blobs, resumed) == found[1:]
    notes = notes_of(evaluator(), syn, blobs, make_ctx())
    assert notes == notes_of(evaluator(), syn, blobs, resumed), "with the scores of the finished networks"
    assert len(notes) == 7 and any(note.startswith("kmeans ") for note in notes)


def test_prefixes_of_a_quantised_set_are_those_of_its_decoded_images(blobs, make_ctx):
    syn = ImageSet.coreset(blobs, blobs.train.draw(3, torch.Generator().manual_seed(0)).flatten())
    coded, some = QuantisedSet.of(syn, Quantiser(2)), evaluator(controls=[], ipcs=[1])
    assert some.check_set(coded, blobs) is None
    found = scores_by_network(some, coded, blobs, make_ctx())
    assert found == scores_by_network(some, coded.decoded, blobs, make_ctx())
    one = QuantisedSet.of(prefix(syn, 1), Quantiser(2)).decoded
    assert torch.equal(prefix(coded.decoded, 1).images, one.images), "each image has its own range"
    assert prefix(coded.decoded, 1).identity() != prefix(syn, 1).identity()


def test_controls_of_sets_with_more_images_than_the_smallest_class(blobs, make_ctx):
    kept = [blobs.train.of_class(c)[: 9 if c else 2] for c in range(3)]
    few = replace(blobs, train=blobs.train.subset(torch.cat(kept)))
    syn = ImageSet.coreset(blobs, blobs.train.draw(3, torch.Generator().manual_seed(0)).flatten())
    notes = notes_of(evaluator(ipcs=[3], num_networks=1), syn, few, make_ctx())
    assert notes[0] == "the controls are measured only at IPCs up to 2, the size of the smallest real class"
    assert [n for n in notes if "no IPC was measured for both" in n] == notes[-2:] and len(notes) == 4
    assert len(notes_of(evaluator(ipcs=[1], num_networks=1), syn, few, make_ctx())) == 8


def test_unsupported_sets_protocols_and_values(blobs, protocol, recipe, motifs):
    whole = ImageSet.coreset(blobs, torch.arange(120), whole=True)
    assert "got the whole training set" in evaluator().check_set(whole, blobs)
    rule = protocol(recipe=recipe(), selection="best_on_val", eval_every=1)
    assert "has selection=best_on_val" in evaluator().check_protocol(rule)
    with pytest.raises(
        ValueError, match=r"evaluator.controls must be a list of random and kmeans, got 'full'"
    ):
        evaluator(controls=["full"])
    with pytest.raises(ValueError, match=r"must not be empty, got \[\]. Example: evaluator.ipcs=\[1,10\]"):
        evaluator(ipcs=[])
    with pytest.raises(ValueError, match=r"must be numbers >= 1, got 0. Example: evaluator.ipcs=\[1,10\]"):
        evaluator(ipcs=[0, 10])
