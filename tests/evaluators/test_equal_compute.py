"""Tests of `equal_compute`: equal steps and images, new images in each batch, and steps that last the seconds."""

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.distillation.coreset import build_coreset
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators import equal_compute
from dd_bench.evaluators.equal_compute import EqualCompute, random_classes
from dd_bench.runtime.cache import Cache


@pytest.fixture
def trained(blobs, convnet, runtime, protocol, recipe, tmp_path, monkeypatch):
    """Function that measures a set of two images per class, and returns the results and the calls of `train`."""

    def run(seconds, set_seconds=None, finished=()):
        calls, train = [], fresh_networks.train

        def spy(net, fetch, n, recipe, **options):
            index = torch.arange(n)
            batches = [fetch(index) for _ in range(2)]
            calls.append((n, recipe.epochs, batches))
            return train(net, fetch, n, recipe, **options)

        with monkeypatch.context() as patch:
            patch.setattr(fresh_networks, "train", spy)
            patch.setattr(equal_compute, "_seconds_per_step", lambda fresh, real: 0.5)
            syn = build_coreset(blobs, blobs.train.draw(2, torch.Generator().manual_seed(0)).flatten())
            ctx = EvaluationContext(
                seed=0, runtime=runtime, architecture=convnet(blobs), cache=Cache(tmp_path), ipc=2,
                protocol=protocol(recipe=recipe(epochs=4, batch_size=5, milestones=(2,))),
                set_seconds=set_seconds, set_device="a fast device", finished=frozenset(finished),
            )  # fmt: skip
            results = list(EqualCompute(num_networks=2, seconds=seconds).run(syn, blobs, ctx))
        return results, calls

    return run


def test_controls_have_the_steps_and_batches_of_the_set(trained, blobs, runtime):
    results, calls = trained("set", set_seconds=3.5)
    assert [s.metric for s in results[1].scores] == ["accuracy", "random", "equal_compute", "equal_seconds"]
    assert results[0].notes == ()
    (text,) = results[0].results
    assert text.startswith(
        "equal_seconds: 7 steps of 5 real images in 4 s, which the set took on a fast device; "
    )
    assert text.endswith(runtime.device_name())
    on_set, random, new, seconds = calls[:4]
    assert [call[:2] for call in (on_set, random, new, seconds)] == [(6, 4), (6, 4), (6, 4), (5, 7)]
    for _, _, ((first, _), (second, _)) in (on_set, random):
        assert torch.equal(first, second)  # the same images in each epoch
    everything = blobs.train.inputs(torch.arange(len(blobs.train)))
    for _, _, batches in (new, seconds):
        (first, labels), (second, again) = batches
        assert not torch.equal(first, second)
        same = (first[:, None] == everything[None]).flatten(2).all(2)
        assert torch.equal(blobs.train.labels[same.int().argmax(1)], labels) and bool(same.any(1).all())
        assert torch.equal(labels, again) or batches is seconds[2]
    assert (
        len({tuple(y.tolist()) for call in calls if call[0] == 5 for _, y in call[2]}) > 1
    )  # random classes


@pytest.mark.parametrize("n", [1, 7, 23])
def test_batches_of_random_classes_have_all_classes_equally_often(n):
    k, batches, rng = 10, 2000, torch.Generator().manual_seed(0)
    counts = torch.stack([random_classes(k, n, rng).bincount(minlength=k) for _ in range(batches)])
    assert bool((counts.sum(1) == n).all()) and int((counts.amax(1) - counts.amin(1)).max()) == 1
    spread = (
        n % k / k * (1 - n % k / k) * batches
    ) ** 0.5  # of the number of batches with one more image of a class
    assert float((counts.sum(0) - n * batches / k).abs().max()) < 4 * spread


def test_images_depend_on_the_network_only(trained):
    """A resumed run trains the second network on the same images."""
    results, _ = trained("set", set_seconds=2.0)
    resumed, _ = trained("set", set_seconds=2.0, finished=(0,))
    assert results[2].scores == resumed[1].scores


def test_without_seconds(trained):
    results, _ = trained("set")
    assert results[0].notes == ("no control equal_seconds: the card of the set does not contain its seconds",)
    assert [s.metric for s in results[1].scores] == ["accuracy", "random", "equal_compute"]
    results, calls = trained(1.0)
    assert calls[3][:2] == (5, 2) and results[0].results == ["equal_seconds: 2 steps of 5 real images in 1 s"]
    with pytest.raises(ValueError, match="must be a number > 0, set or null, got 0"):
        EqualCompute(num_networks=1, seconds=0)
    assert trained(None)[0][0].notes == ()
