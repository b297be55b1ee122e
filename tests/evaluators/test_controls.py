"""Tests of the controls of `controls`: batches that are equal to those of the set."""

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.data.inputs import LazyInputs
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators._scoring import repeat_images
from dd_bench.evaluators.controls import Controls
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.compensated import CompensatedSet


def test_repeated_images_take_turns():
    """No image is used more than once more often than another, and no class either."""
    images, labels = torch.arange(6.0).view(6, 1), torch.tensor([0, 0, 0, 1, 1, 1])
    repeated, of = repeat_images(images, labels, 10)
    assert repeated.flatten().tolist() == [0, 3, 1, 4, 2, 5, 0, 3, 1, 4]
    assert torch.bincount(of).tolist() == [5, 5]
    lazy, _ = repeat_images(LazyInputs(6, images.device, lambda i: images[i]), labels, 10)
    assert torch.equal(lazy[torch.arange(10)], repeated)


@pytest.mark.parametrize("equal", ["batches", "epochs"])
def test_equal_batches(blobs, convnet, runtime, protocol, recipe, tmp_path, monkeypatch, equal):
    """With ipc=3, the set trains on 6 + 6 images and the controls on 6 and 9, in batches of 5."""
    calls, train = {}, fresh_networks.train

    def spy(net, fetch, n, recipe, **options):
        calls.setdefault(n, []).append((recipe.epochs, recipe.batch_size))
        return train(net, fetch, n, recipe, **options)

    monkeypatch.setattr(fresh_networks, "train", spy)
    index = torch.stack([blobs.train.of_class(c)[:2] for c in range(3)], 1).flatten()
    syn = CompensatedSet.of(blobs, index, torch.zeros(2, 1, *blobs.shape))
    ctx = EvaluationContext(
        seed=0,
        runtime=runtime,
        architecture=convnet(blobs),
        cache=Cache(tmp_path),
        protocol=protocol(recipe=recipe(epochs=1, batch_size=5, milestones=())),
        ipc=3,
    )
    results = list(Controls(num_networks=1, equal=equal).run(syn, blobs, ctx))
    assert [s.metric for s in results[1].scores] == ["accuracy", "natural", "random"]
    expected = {12: [(1, 5)] * 3} if equal == "batches" else {12: [(1, 5)], 6: [(1, 5)], 9: [(1, 5)]}
    assert calls == expected
