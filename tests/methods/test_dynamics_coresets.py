"""Tests of the coresets from training dynamics: scores of hand-made probabilities, and the selection rules."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from dd_bench.distillation.ranking import PICKS, select_ranked
from dd_bench.methods import _dynamics, ccs, d2, forgetting

GENERATOR = torch.Generator().manual_seed(0)
SCORES = (
    "el2n",
    "grand",
    "forgetting",
    "aum",
    "least_confidence",
    "margin",
    "entropy",
    "easiest",
    "cad_prune",
)


def float64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def difficulty(method, p, c=0, norms=None):
    """Scores of hand-made probabilities `(K, n, k)`."""
    norms = torch.zeros(p.shape[:2], dtype=p.dtype) if norms is None else norms
    return method.difficulty(p, norms, c, GENERATOR)


P = torch.stack(  # two points, three images of class 0
    [
        float64([0.5, 0.25, 0.25], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]),
        float64([0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
    ]
)


def test_el2n(make_method):
    first = float64(0.25 + 0.125, 0.64 + 0.25 + 0.09, 0).sqrt()
    second = float64(0.04 + 0.02, 2, 0).sqrt()
    torch.testing.assert_close(difficulty(make_method("el2n"), P), (first + second) / 2)
    torch.testing.assert_close(difficulty(make_method("el2n", first_points=1), P), first)


@pytest.mark.parametrize("name", ["el2n", "grand"])
def test_more_points_than_are_recorded(make_method, name, blobs, convnet):
    reason = make_method(name, first_points=100).check_dataset(blobs, 1, convnet(blobs))
    assert "the number of epochs of method.teacher, 3" in reason and "Use method.first_points=3" in reason
    assert make_method(name, first_points=3).check_dataset(blobs, 1, convnet(blobs)) is None


def test_grand_equals_the_gradient_of_the_last_layer(make_method):
    """By autograd, for a linear layer with a bias."""
    h = torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
    layer = torch.nn.Linear(5, 3, dtype=torch.float64)
    expected = []
    for x in h:
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x)[None], torch.tensor([1])).backward()
        expected.append((layer.weight.grad.square().sum() + layer.bias.grad.square().sum()).sqrt())
    p = layer(h).softmax(1).detach()[None]
    found = difficulty(make_method("grand"), p, c=1, norms=h.norm(dim=1)[None])
    torch.testing.assert_close(found, torch.stack(expected))


def test_forgetting_counts_changes_from_right_to_wrong():
    right = [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    p = torch.tensor(right, dtype=torch.float64).T[..., None]  # (K, n, 1)
    events = forgetting.forgetting_events(torch.cat([1 - p, p], 2), 1)
    assert events.tolist() == [0, 0, 2, 4, 1, 0]  # never right: K, more than the 2 that 4 points allow


def test_forgetting_breaks_ties_at_random(make_method):
    method, p = make_method("forgetting"), P[:, [2] * 50]
    orders = {
        tuple(method.difficulty(p, None, 0, torch.Generator().manual_seed(s)).argsort().tolist())
        for s in (0, 0, 1)
    }
    assert len(orders) == 2


def test_aum_is_the_mean_margin(make_method):
    margin = float64((0.25 + 0.7) / 2, (-0.3 - 1) / 2, 1)
    torch.testing.assert_close(difficulty(make_method("aum"), P), -margin)


def test_uncertainty_of_the_last_point(make_method):
    torch.testing.assert_close(difficulty(make_method("least_confidence"), P), float64(0.2, 0, 0))
    torch.testing.assert_close(difficulty(make_method("margin"), P), float64(0.3, 0, 0))
    entropy = -(0.8 * torch.log(float64(0.8)) + 0.2 * torch.log(float64(0.1)))
    torch.testing.assert_close(
        difficulty(make_method("entropy"), P), torch.cat([entropy, float64(0, 0)]), atol=1e-12, rtol=0
    )
    uniform = torch.full((1, 1, 4), 0.25, dtype=torch.float64)
    torch.testing.assert_close(difficulty(make_method("entropy"), uniform), torch.log(float64(4.0)))


def test_uncertainty_does_not_use_the_label(make_method):
    for name in ("least_confidence", "margin", "entropy"):
        method = make_method(name)
        assert torch.equal(difficulty(method, P, 0), difficulty(method, P, 2)), name


def test_easiest_are_those_with_the_largest_probability_of_their_class(make_method):
    torch.testing.assert_close(difficulty(make_method("easiest"), P), float64(0.2, 1, 0))
    dynamics = SimpleNamespace(probabilities=lambda index: P[:, index], norms=lambda index: None)
    real = SimpleNamespace(train=SimpleNamespace(of_class=lambda c: torch.arange(3)))
    assert make_method("easiest").select(dynamics, real, 0, 2, GENERATOR).tolist() == [2, 0]


def test_cad_is_the_spread_of_the_last_windows(make_method):
    """Errors rise and fall, with windows of two points: the deviation of two values a and b is |a - b| / sqrt(2)."""
    e = float64([0.9, 0.5, 0.4, 0.2], [0.1, 0.1, 0.1, 0.1]).T  # (K, n)
    p = torch.stack([1 - e, e], 2)  # EL2N is sqrt(2) e
    method = make_method("cad_prune", points=4, window=2, windows=2)
    torch.testing.assert_close(difficulty(method, p), float64((0.1 + 0.2) / 2, 0))
    method = make_method("cad_prune", points=4, window=2, windows=[0, 1])
    torch.testing.assert_close(difficulty(method, p), float64((0.4 + 0.1) / 2, 0))
    for windows in (2, 0, [], [1], [-1]):
        with pytest.raises(ValueError, match="points=4, window=4 and windows="):
            make_method("cad_prune", points=4, window=4, windows=windows)


def test_the_windows_of_cad_are_those_of_the_paper(make_method):
    """W windows of J of K points start at K - J - W, ..., K - J - 1, so the last point is in no window."""
    method = make_method("cad_prune", smoke=False)
    k, j, w = method.points, method.window, len(method.starts)
    assert (k, j, method.starts) == (10, 6, [2, 3]) == (10, 6, list(range(k - j - w, k - j)))
    e = torch.rand(k, 5, generator=GENERATOR, dtype=torch.float64)
    score = lambda e: difficulty(method, torch.stack([1 - e, e], 2))  # noqa: E731
    expected = 2**0.5 * (e[2:8].std(0) + e[3:9].std(0)) / 2
    torch.testing.assert_close(score(e), expected)
    last = torch.cat([e[:-1], torch.rand(1, 5, dtype=torch.float64)])
    assert torch.equal(score(last), score(e))
    entries = make_method("cad_prune", smoke=False, windows=2)  # of committed entries
    assert entries.starts == [3, 4]


def test_cad_compresses_the_recipe_of_the_student(make_method, blobs):
    """As many images as 301 epochs on the set, and the milestone after the same share of them."""
    method = make_method("cad_prune", smoke=False)
    for ipc, steps, milestone in ((1, 4, 2), (10, 36, 18), (34, 120, 61)):  # of three classes, batches of 256
        found = method.recipe_for(blobs, ipc)
        assert (found.steps, found.milestones, found.epochs) == (steps, (milestone,), 1)
        assert 0 <= steps * 256 - 301 * 3 * ipc < 256
    reason = method.check_dataset(blobs, 1, None)
    assert "the number of training steps, 4 at ipc=1, got 10. Use method.teacher.batch_size=102" in reason
    assert (
        make_method("cad_prune", smoke=False, **{"teacher.batch_size": 90}).check_dataset(blobs, 1, None)
        is None
    )


def test_cad_with_the_recorded_recipe_of_older_entries(make_method, blobs):
    """Their steps were a value of the configuration, and their schedule a cosine."""
    older = {"steps": 118, "epochs": 1, "milestones": [], "schedule": "cosine", "gamma": 1.0}
    method = make_method("cad_prune", smoke=False, **{f"teacher.{k}": v for k, v in older.items()})
    assert method.recipe_for(blobs, 1) == method.recipe_for(blobs, 10) == method.recipe
    assert (method.recipe.steps, method.recipe.schedule, method.recipe.milestones) == (118, "cosine", ())


def test_ranked():
    scores = float64(0.3, 0.1, 0.5, 0.2, 0.4)
    assert select_ranked(scores, 5, "easy").tolist() == [1, 3, 0, 4, 2]
    assert select_ranked(scores, 5, "hard").tolist() == [2, 4, 0, 3, 1]
    assert select_ranked(scores, 5, "medium").tolist() == [
        0,
        4,
        3,
        2,
        1,
    ]  # the median, then both sides in turn
    assert select_ranked(scores[:4], 4, "medium").tolist() == [3, 0, 1, 2]  # of four, the second
    equal = torch.zeros(4)
    assert all(select_ranked(equal, 2, pick).tolist() == [0, 1] for pick in ("easy", "hard"))


def test_without_hardest():
    scores = float64(0.3, 0.1, 0.5, 0.2, 0.4)
    assert _dynamics.without_hardest(scores, 0.4, 2).tolist() == [1, 3, 0]
    assert _dynamics.without_hardest(scores, 0.9, 4).tolist() == [1, 3, 0, 4]  # at least four
    assert _dynamics.without_hardest(scores, 0.0, 1).tolist() == [1, 3, 0, 4, 2]


@pytest.mark.parametrize("count", [1, 3, 10, 100, 700])
def test_stratified_covers_the_range(count):
    """700 skewed scores: with at most `count` strata, every stratum gets an equal share or all of its images."""
    scores = torch.rand(700, generator=GENERATOR, dtype=torch.float64) ** 4
    strata = min(50, count)
    chosen = ccs.stratified(scores, count, strata, GENERATOR)
    assert len(set(chosen.tolist())) == len(chosen) == count
    low, high = scores.aminmax()
    bins = lambda x: ((x - low) / (high - low) * strata).long().clamp_max(strata - 1)  # noqa: E731
    taken, sizes = (torch.bincount(bins(x), minlength=strata) for x in (scores[chosen], scores))
    level = int(taken.max())
    assert all(t == s or t >= level - 1 for t, s in zip(taken.tolist(), sizes.tolist(), strict=True))


def test_stratified_with_equal_scores():
    chosen = ccs.stratified(torch.ones(9, dtype=torch.float64), 4, 4, GENERATOR)
    assert len(set(chosen.tolist())) == 4


def test_preference():
    scores = float64(-1, 2, 0, 5)
    assert d2.preference(scores, "hard").tolist() == [0, 3, 1, 6]
    assert d2.preference(scores, "easy").tolist() == [6, 3, 5, 0]
    assert d2.preference(scores, "medium").tolist() == [4, 3, 5, 0]  # median 0


def test_nearest_against_all_pairs():
    x = torch.randn(30, 4, generator=GENERATOR, dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    every = (unit[:, None] - unit[None]).norm(dim=2).fill_diagonal_(torch.inf)
    distance, position = d2.nearest(x, 5)
    torch.testing.assert_close(distance, every.sort(1).values[:, :5], atol=1e-7, rtol=1e-6)
    assert torch.equal(position, every.argsort(1)[:, :5])
    assert d2.nearest(x[:3], 5)[0].shape == (3, 2)
    assert d2.nearest(x[:1], 5)[0].shape == (1, 0)


def test_message_passing_by_hand(make_method):
    """Images 0 and 1 are equal, 2 is opposite to them. With one neighbour, 0 and 1 are neighbours at distance 0."""
    features = float64([1, 0], [1, 0], [-1, 0])
    method = make_method("d2", neighbours=1, gamma=0.5)
    # forward: u0 = 3 + 2, u1 = 2 + 3, u2 = 4 + exp(-2) s of its nearest image (0 or 1)
    # 0 is first, and lowers u1 to 5 - exp(0) 5 = 0; then 2 is before 1
    assert method.pass_messages(float64(3.0, 2.0, 4.0), features, 3).tolist() == [0, 2, 1]
    # without messages back, the neighbour is second
    far = make_method("d2", neighbours=1, gamma=1e9)
    separate = float64([1, 0], [1, 0.1], [-1, 0])
    assert far.pass_messages(float64(3.0, 2.0, 4.0), separate, 2).tolist() == [0, 1]


def test_moderate_selects_the_images_at_the_median_distance(make_method):
    x = float64(
        [0.0], [-10.0], [10.0], [-4.0], [4.0], [-5.0], [5.0]
    )  # mean 0; distances 0 10 10 4 4 5 5, median 5
    assert make_method("moderate").select(x, 4, 0).tolist() == [5, 6, 3, 4]


@pytest.mark.parametrize("name", [*SCORES[:-1], "ccs", "d2"])
def test_coresets_share_one_network(make_method, make_ctx, train_blobs, name):
    """The cache of this module contains the predictions of one network for all of them."""
    ctx = make_ctx()
    make_method(name).prepare(train_blobs, ctx)
    keys = {folder.name for folder in ctx.cache.root.glob("dynamics-*") if folder.is_dir()}
    assert make_method(name).recipe == make_method("el2n").recipe
    assert len(ctx.cache.seconds) == 1 and set(ctx.cache.seconds) <= keys


def test_picks_select_different_images_and_are_nested(make_method, make_ctx, train_blobs):
    picks = {
        pick: [
            torch.tensor(make_method("el2n", pick=pick).distill(train_blobs, n, make_ctx()).source).view(3, n)
            for n in (1, 5)
        ]
        for pick in PICKS
    }
    assert all(torch.equal(few, many[:, :1]) for few, many in picks.values())
    for a, b in pairwise(picks.values()):
        assert not torch.equal(a[0], b[0])
    with pytest.raises(ValueError, match=r"method\.pick must be easy, medium or hard, got best"):
        make_method("el2n", pick="best")
