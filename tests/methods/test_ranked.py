"""Tests of real images ranked by a teacher: order, picks, pool, shards and error messages."""

from types import SimpleNamespace

import pytest
import torch

from dd_bench.data.dataset import TensorSplit
from dd_bench.methods._recovery.ranked import Rank, difficulty, ranked_images


@pytest.fixture
def grey(train_blobs, monkeypatch):
    """A split of eight images of one class, and an observer that prefers bright ones."""
    monkeypatch.setattr("dd_bench.methods._recovery.ranked.eval_batch_size", lambda net, shape: 3)
    value = torch.tensor([30, 10, 50, 20, 40, 70, 60, 0])
    pixels = value.view(8, 1, 1, 1).expand(8, 1, 8, 8).to(torch.uint8).contiguous()
    split = TensorSplit(pixels, torch.zeros(8, dtype=torch.int64), 1, train_blobs.preprocess)
    real = SimpleNamespace(train=split, num_classes=1, shape=(1, 8, 8))

    def logits(x, exact):
        assert exact
        return torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)

    return real, SimpleNamespace(logits=logits, net=None)


@pytest.fixture
def taken(grey, make_ctx):
    """Function that returns the brightness of the images that a ranking takes."""

    def take(count, **changes):
        real, observer = grey
        rank = Rank(**{"by": "probability", "pick": "easy", "pool": None} | changes)
        index = ranked_images(real, count, observer, rank, make_ctx(work=f"{count} {changes}"))
        return real.train.pixels(index[0])[:, 0, 0, 0].tolist()

    return take


def test_picks(taken):
    assert taken(3) == [70, 60, 50]
    assert taken(3, pick="hard") == [0, 10, 20]
    assert taken(4, pick="medium") == [40, 30, 50, 20]  # rank 4 of 8, then 5, 3, 6
    assert taken(3, by="loss") == [70, 60, 50]


def test_pool_is_the_first_images(taken):
    assert taken(2, pool=5) == [50, 40]


def test_loss_is_minus_the_logarithm_of_the_probability(grey):
    real, observer = grey
    p, loss = (difficulty(real, torch.arange(8), 0, observer, by) for by in ("probability", "loss"))
    torch.testing.assert_close((-p).log(), -loss)
    assert p.dtype == torch.float64


def test_the_set_consists_of_real_images_that_the_teacher_ranks(make_method, make_ctx, train_blobs):
    """The images of a class are its most probable ones under the teacher, most probable first."""
    ctx = make_ctx()
    syn = make_method("ranked").distill(train_blobs, 3, ctx)
    (teacher,) = ctx.teachers_of(train_blobs)
    for c in range(3):
        index = train_blobs.train.of_class(c)
        p = teacher.logits(train_blobs.train.inputs(index), exact=True).softmax(1)[:, c]
        expected = train_blobs.train.pixels(index[p.argsort(descending=True)[:3]])
        assert torch.equal(syn.images[3 * c : 3 * c + 3], expected)


def test_too_small_pool(make_method, train_blobs, make_architecture):
    method = make_method("ranked", **{"rank.pool": 2})
    reason = method.check_dataset(train_blobs, 3, make_architecture())
    assert reason == "method.rank.pool must be >= 3 for ipc=3, got 2. Example: method.rank.pool=3"


@pytest.mark.parametrize("changes", [{"rank.by": "logit"}, {"rank.pick": "best"}, {"rank.pool": 0}])
def test_invalid_arguments_raise(make_method, changes):
    with pytest.raises(ValueError, match=r"method\.rank\."):
        make_method("ranked", **changes)
