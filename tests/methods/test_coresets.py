"""Tests of the coresets: each selection rule against brute force, and unchanged real images."""

import warnings

import pytest
import torch

from dd_bench.distillation.init import initial_images
from dd_bench.models.architecture import Architecture
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.teachers.feature_networks import class_embeddings, feature_network
from dd_bench.training.recipe import Recipe

GNN = {"layers": 3, "hidden": 128, "dropout": 0.0, "norm": "none", "readout": "sum", "jk": "last"}
SELECTIONS = ("herding", "kcenter", "kmeans")


def features(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(x, chosen):
    return float((x[chosen].mean(0) - x.mean(0)).norm())


@pytest.mark.parametrize("seed", range(5))
def test_herding_equals_greedy_selection(make_method, seed):
    """The image nearest to (j + 1) mean - sum minimises the distance of the mean of the selected images."""
    x = features(12, 3, seed)
    chosen = []
    for _ in range(7):
        unused = [i for i in range(12) if i not in chosen]
        chosen.append(min(unused, key=lambda i: gap(x, [*chosen, i])))
    assert make_method("herding").select(x, 7, seed=0).tolist() == chosen


def test_herding_example(make_method):
    x = torch.tensor([[-4.0], [-1.0], [0.5], [1.5], [8.0]], dtype=torch.float64)  # mean 1
    # Targets: 1 (0.5 and 1.5 tie, the first wins), 2 - 0.5 = 1.5, 3 - 2 = 1 (selects -1), 4 - 1 = 3 (selects 8).
    assert make_method("herding").select(x, 5, seed=0).tolist() == [2, 3, 1, 4, 0]


def test_herding_mean_converges_faster_than_random(make_method):
    x, method = features(60, 4), make_method("herding")
    generator = torch.Generator().manual_seed(1)
    for ipc in (1, 5, 10, 20):
        random = [gap(x, torch.randperm(60, generator=generator)[:ipc]) for _ in range(20)]
        assert gap(x, method.select(x, ipc, 0)) < min(random)
    errors = [gap(x, method.select(x, ipc, 0)) for ipc in (1, 4, 16, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_kcenter_equals_farthest_first_selection(make_method, seed):
    x = features(12, 3, seed)
    distance = (x[:, None] - x[None]).norm(dim=2)
    chosen = [int((x - x.mean(0)).norm(dim=1).argmin())]
    for _ in range(6):
        chosen.append(max(range(12), key=lambda i: float(distance[i, chosen].min())))
    assert make_method("kcenter").select(x, 7, seed=0).tolist() == chosen


def test_kcenter_radius_is_at_most_twice_the_optimum(make_method):
    """Gonzalez' bound; the optimum is found by trying all pairs of centres."""
    x = features(15, 2)
    distance = (x[:, None] - x[None]).norm(dim=2)
    radius = lambda chosen: float(distance[:, chosen].min(1).values.max())  # noqa: E731
    best = min(radius([i, j]) for i in range(15) for j in range(i))
    assert radius(make_method("kcenter").select(x, 2, 0).tolist()) <= 2 * best + 1e-12


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("ipc", [1, 3, 6])
def test_no_image_is_selected_twice(make_method, name, ipc):
    x = torch.tensor([[0.0, 1.0], [5.0, 1.0]], dtype=torch.float64).repeat(3, 1)  # 6 images, 2 distinct
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # from scikit-learn
        chosen = make_method(name).select(x, ipc, seed=0).tolist()
    assert len(set(chosen)) == len(chosen) == ipc


@pytest.mark.parametrize("name", SELECTIONS)
def test_whole_class_can_be_selected(make_method, name):
    assert sorted(make_method(name).select(features(8, 3), 8, seed=0).tolist()) == list(range(8))


def test_kmeans_selects_the_image_nearest_to_each_centroid(make_method):
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    x = (centres[:, None] + 0.5 * features(30, 2).view(3, 10, 2)).flatten(0, 1)
    chosen = make_method("kmeans").select(x, 3, seed=0)
    expected = []
    for c in range(3):
        group = x[10 * c : 10 * c + 10]
        expected.append(10 * c + int((group - group.mean(0)).norm(dim=1).argmin()))
    assert sorted(chosen.tolist()) == expected


def test_kmeans_with_equal_centroids(make_method, monkeypatch):
    """The second of two equal centroids gets its nearest unused image."""

    class Clustering:
        def __init__(self, n, **kwargs):
            self.n = n

        def fit(self, x):
            self.cluster_centers_ = x[[0] * self.n]

    monkeypatch.setattr("sklearn.cluster.KMeans", Clustering)
    x = torch.arange(5.0, dtype=torch.float64)[:, None]
    assert make_method("kmeans").select(x, 3, seed=0).tolist() == [0, 1, 2]


def test_untrained_kmeans_uses_pixels_or_a_random_network(make_method, make_ctx, train_blobs):
    sets = [
        make_method("kmeans_untrained", features=features).distill(train_blobs, 4, make_ctx()).source
        for features in ("pixels", "random")
    ]
    assert sets[0] != sets[1]
    with pytest.raises(ValueError, match=r"method\.features must be pixels or random, got trained"):
        make_method("kmeans_untrained", features="trained")


def test_only_kmeans_depends_on_the_seed(make_method):
    x = features(50, 2)
    for name in SELECTIONS:
        chosen = {tuple(sorted(make_method(name).select(x, 6, seed).tolist())) for seed in range(6)}
        assert (len(chosen) > 1) == (name == "kmeans"), name


@pytest.mark.parametrize("name", ["random", "full", *SELECTIONS])
def test_images_are_unchanged_training_images(make_method, make_ctx, train_blobs, name):
    syn = make_method(name).distill(train_blobs, 4, make_ctx())
    assert syn.space == "pixel"
    assert syn.images.dtype == torch.uint8
    index = torch.tensor(syn.source)
    assert len(index.unique()) == len(index) == len(syn.images)
    assert torch.equal(syn.images, train_blobs.train.pixels(index))
    assert torch.equal(syn.labels, train_blobs.train.labels[index])
    images, _ = syn.materialise(torch.device("cpu"))
    assert torch.equal(images, train_blobs.train.inputs(index))


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection_uses_class_embeddings_of_the_trained_network(make_method, make_ctx, train_blobs, name):
    ctx, method = make_ctx(), make_method(name)
    method.prepare(train_blobs, ctx)
    syn = method.distill(train_blobs, 4, ctx)
    net = feature_network(train_blobs, ctx.architecture, method.recipe, 0, ctx)
    assert not net.training
    for c in range(3):
        x = class_embeddings(net, train_blobs, c)
        assert torch.equal(x, net.embed(train_blobs.train.inputs(train_blobs.train.of_class(c))).detach())
        expected = train_blobs.train.of_class(c)[method.select(x.double(), 4, ctx.seed_for("select", c))]
        assert list(syn.source[4 * c : 4 * c + 4]) == expected.tolist()


def test_feature_networks_of_sets(make_method, make_ctx, train_blobs):
    """`shared`: one network for all sets. `per_set`: network number `seed` of the set, the same for each method."""

    def weights(seed, name="herding", **arguments):
        method, ctx = make_method(name, **arguments), make_ctx(seed)
        method.prepare(train_blobs, ctx)
        return torch.cat([p.detach().flatten() for p in method.network(train_blobs, ctx).parameters()])

    assert torch.equal(weights(0), weights(1))
    own = [weights(seed, feature_network="per_set") for seed in (5, 6)]
    assert not torch.allclose(*own)
    assert not any(torch.allclose(weights(0), w) for w in own)
    assert torch.equal(own[0], weights(5, "kmeans", feature_network="per_set"))
    with pytest.raises(ValueError, match=r"method\.feature_network must be shared or per_set, got each"):
        make_method("kmeans", feature_network="each")


def test_length_of_the_feature_networks_training_is_logged_before_it(
    make_method, make_ctx, train_blobs, messages
):
    ctx = make_ctx(fresh_cache=True)
    make_method("kcenter").prepare(train_blobs, ctx)
    epochs, n = make_method("kcenter").recipe.epochs, len(train_blobs.train)
    assert f"training feature network 0: {epochs} epochs of {n} images" in messages


def test_damaged_feature_network_raises(make_method, make_ctx, train_blobs):
    method, ctx = make_method("herding"), make_ctx(fresh_cache=True)
    method.prepare(train_blobs, ctx)
    (file,) = ctx.cache.root.glob("teacher-*/network.safetensors")
    for size in (0, 100, -1):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ValueError, match=rf"is damaged .* rm -r {file.parent}"):
            method.distill(train_blobs, 1, ctx)


def test_random_selects_the_initial_images_of_other_methods(make_method, make_ctx, train_blobs):
    for seed in (0, 1):
        images, _ = (
            make_method("random").distill(train_blobs, 4, make_ctx(seed)).materialise(torch.device("cpu"))
        )
        assert torch.equal(images, initial_images("real", train_blobs, 4, make_ctx(seed)).flatten(0, 1))
        start = make_method("dm", iterations=0).distill(train_blobs, 4, make_ctx(seed, work=f"dm{seed}"))
        assert torch.equal(images, start.images)


def test_sets_of_different_ipc_are_nested(make_method, make_ctx, train_blobs):
    """A set with a smaller ipc is the beginning of one with a larger ipc, for random and the greedy rules."""
    for name in ("random", "herding", "kcenter"):
        few, many = (
            torch.tensor(make_method(name).distill(train_blobs, ipc, make_ctx()).source).view(3, ipc)
            for ipc in (2, 5)
        )
        assert torch.equal(few, many[:, :2]), name


@pytest.mark.parametrize("name", ["random", *SELECTIONS])
def test_too_large_ipc(make_method, make_architecture, train_blobs, name):
    reason = make_method(name).check_dataset(train_blobs, 18, make_architecture())
    assert reason == (
        "ipc=18 exceeds the size of class 'b' of blobs (17 images), and this method samples without replacement. "
        "Use ipc<=17"
    )
    assert make_method(name).check_dataset(train_blobs, 17, make_architecture()) is None


@pytest.mark.parametrize("name", SELECTIONS)
def test_wrong_modality_names_the_right_method(
    make_method, train_blobs, motifs, gin, make_architecture, name
):
    graphs = make_method(name).check_dataset(motifs, 2, gin(motifs))
    assert graphs.endswith(f"contains graphs. Use method={name}_graphs")
    images = make_method(f"{name}_graphs").check_dataset(train_blobs, 2, make_architecture())
    assert images.endswith(f"contains images. Use method={name}")
    assert make_method(f"{name}_graphs").check_dataset(motifs, 2, gin(motifs)) is None


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gcn", "gin"])
def test_feature_network_of_graphs_is_trained(make_ctx, make_gnn, motifs, model):
    """Networks with the shipped recipe fit the training graphs, whose classes differ in their node degrees."""
    plan = Recipe(**shipped_yaml("method", "herding_graphs")["teacher"])
    net = make_gnn(model, motifs.shape)
    architecture = Architecture(type(net), GNN, motifs.shape, 2, model)
    ctx = make_ctx(architecture=architecture, fresh_cache=True)
    net = feature_network(motifs.train_only(), architecture, plan, 0, ctx)
    ((x, y),) = motifs.train.batches(100)
    loss = torch.nn.functional.cross_entropy(net(x), y).detach()
    share = y.float().mean()
    majority = -(share * share.log() + (1 - share) * (1 - share).log())
    assert float(loss) < 0.5 * float(majority), float(loss)
