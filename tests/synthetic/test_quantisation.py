"""Quantisation of images: error, repetition, packing, and sets of codes."""

import math
import warnings

import pytest
import torch
from safetensors.torch import load_file

from dd_bench.synthetic import storage
from dd_bench.synthetic.code_sizes import code_sizes
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.precision import check_store, quantise_set, store_as
from dd_bench.synthetic.quantisation import BITS, Quantiser, dequantise, pack, quantise, unpack
from dd_bench.synthetic.quantised import QuantisedSet

CPU = torch.device("cpu")
PER = ("set", "image", "channel", "patch")


def drawn(kind: str) -> torch.Tensor:
    """Return images `(10, 2, 7, 8)`, whose sides are no multiple of a patch."""
    draw = torch.Generator().manual_seed(0)
    noise = 3 * torch.randn(10, 2, 7, 8, generator=draw)
    if kind == "background":
        return torch.where(noise < 0, torch.tensor(-0.81187), noise)
    if kind == "constant patches":
        return torch.randn(10, 2, 1, 1, generator=draw).expand(10, 2, 7, 8)
    if kind == "narrow":  # the range of values is below the resolution of float16
        return 100 + 0.001 * noise
    return noise


@pytest.mark.parametrize("kind", ["noise", "background", "constant patches", "narrow"])
@pytest.mark.parametrize("per", PER)
def test_the_error_is_at_most_half_a_step_and_a_second_time_changes_nothing(kind, per):
    images = drawn(kind)
    for bits in BITS:
        quantiser = Quantiser(bits, per)
        once = quantise(images, quantiser)
        decoded = dequantise(once, quantiser)
        step = once.step.double()[quantiser.cells(images.shape)]
        assert bool(((images - decoded).abs() <= step / 2 * (1 + 1e-4)).all())
        twice = quantise(decoded, quantiser)
        assert all(torch.equal(a, b) for a, b in zip(once[:3], twice[:3], strict=True)), bits
        assert int(once.codes.max()) < 2**bits


@pytest.mark.parametrize("per", PER)
def test_the_range_of_smallest_squared_error_clips_outliers(per):
    images = drawn("noise")
    images[:, :, 0, 0] = 20.0
    errors = {}
    for clip in ("minmax", "mse"):
        quantiser = Quantiser(3, per, clip)
        decoded = dequantise(quantise(images, quantiser), quantiser)
        errors[clip] = float((images - decoded).square().sum())
        assert torch.equal(dequantise(quantise(decoded, quantiser), quantiser), decoded)
    assert errors["mse"] < 0.95 * errors["minmax"]


def test_cells_are_the_named_parts_of_the_images():
    shape = (2, 3, 5, 6)
    for per, count in (("set", 1), ("image", 2), ("channel", 6), ("patch", 6 * 2 * 2)):
        quantiser = Quantiser(4, per)
        cells = quantiser.cells(shape)
        assert cells.shape == shape and quantiser.num_cells(shape) == count
        assert cells.unique().tolist() == list(range(count))
    assert cells[0, 0].tolist() == [[0, 0, 0, 0, 1, 1]] * 4 + [[2, 2, 2, 2, 3, 3]]


def test_groups_share_the_ranges_of_similar_patches():
    draw = torch.Generator().manual_seed(0)
    flat, busy = 0.1 * torch.rand(6, 1, 4, 4, generator=draw), 5 + torch.rand(6, 1, 4, 4, generator=draw)
    images = torch.cat([flat, busy], 3)
    quantiser = Quantiser(4, "patch", groups=2)
    coded = quantise(images, quantiser)
    assert coded.group is not None and coded.group.view(6, 2).unique(dim=0).shape == (1, 2)
    assert sorted(coded.step.tolist()) == pytest.approx([0.1 / 15, 1 / 15], rel=0.1)
    with pytest.raises(ValueError, match="groups must be at most the number of cells, 12, got 13"):
        quantise(images, Quantiser(4, "patch", groups=13))


@pytest.mark.parametrize("bits", BITS)
def test_packed_values_have_no_unused_bits_between_them(bits):
    values = torch.randint(0, 2**bits, (13,), generator=torch.Generator().manual_seed(0))
    packed = pack(values, bits)
    assert packed.shape == (math.ceil(13 * bits / 8),)
    assert torch.equal(unpack(packed, bits, 13), values)
    text = "".join(f"{v:0{bits}b}" for v in values.tolist())
    assert "".join(f"{b:08b}" for b in packed.tolist()).startswith(text)
    if 13 * bits % 8:
        with pytest.raises(ValueError, match="unused bits"):
            unpack(packed | 1, bits, 13)


def image_set(real, space, n=6):
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % real.num_classes
    if space == "pixel":
        pixels = torch.randint(0, 256, (n, *real.shape), generator=draw, dtype=torch.uint8)
        pixels[0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
        return ImageSet.of(real, pixels, labels, "pixel")
    images = torch.randn(n, *real.shape, generator=draw)
    return ImageSet.of(real, images if space == "input" else images.sigmoid(), labels, space)


def test_eight_bits_of_pixels_are_lossless(blobs3):
    syn = image_set(blobs3, "pixel", 8)
    found, entry = quantise_set(syn, Quantiser(8, "set"))
    assert (entry["rmse"], entry["max_error"], entry["snr_db"]) == (0, 0, None)
    assert all(torch.equal(a, b) for a, b in zip(found.materialise(CPU), syn.materialise(CPU), strict=True))
    assert torch.equal(store_as(syn, "uint8")[0].images, syn.images)


@pytest.mark.parametrize("space", ["pixel", "unit", "input"])
@pytest.mark.parametrize("quantiser", [Quantiser(3, "image"), Quantiser(2, "patch", groups=3)], ids=str)
def test_a_saved_set_has_the_same_codes_and_inputs(tmp_path, blobs, space, quantiser):
    syn = image_set(blobs, space)
    found, entry = quantise_set(syn, quantiser)
    folder = storage.save(
        found, tmp_path / "set", real=blobs, method="m", ipc=2, seed=0,
        config={"stored": entry}, citations=["somebody"], provenance={},
    )  # fmt: skip
    back, card = storage.load(folder)
    assert isinstance(back, QuantisedSet) and back.identity() == found.identity()
    assert all(torch.equal(a, b) for a, b in zip(back.materialise(CPU), found.materialise(CPU), strict=True))
    assert card.config["stored"]["rmse"] > 0 and card.set["space"] == "code"
    sizes = {name: t.numel() * t.element_size() for name, t in load_file(folder / storage.TENSORS).items()}
    assert card.stored_bytes == sizes and sizes["codes"] == 6 * 64 * quantiser.bits / 8
    assert sizes["minimum"] == sizes["step"] == 2 * (quantiser.groups or 6)
    again, error = quantise_set(back, Quantiser(quantiser.bits, quantiser.per))
    if not quantiser.groups:
        assert again.identity() == back.identity() and error["rmse"] == 0


def test_a_forged_set_is_refused(blobs):
    found, _ = quantise_set(image_set(blobs, "input"), Quantiser(3, "image"))
    config, tensors = found.config(), found.tensors()

    def restore(config_changes=(), **changes):
        return QuantisedSet.restore(
            config | dict(config_changes), tensors | changes, blobs.class_names, blobs.preprocess
        )

    assert torch.equal(restore().decoded.images, found.decoded.images)
    for message, changes in {
        "codes must have 3 bits for each of the 384 values": {"codes": tensors["codes"][:-1]},
        "minimum must be float16": {"minimum": tensors["minimum"].float()},
        "step must be > 0": {"step": torch.zeros_like(tensors["step"])},
        "all values of minimum must be finite": {"minimum": tensors["minimum"] * torch.inf},
        "must have the tensor 'group' if": {"group": torch.zeros(1, dtype=torch.uint8)},
    }.items():
        with pytest.raises(ValueError, match=message):
            restore(**changes)
    for message, changes in {
        "bits must be one of 1, 2, 3, 4, 6, 8, got 5": {"bits": 5},
        "codes must have 3 bits": {"stored_shape": [10**9, 1, 8, 8]},
        "stored_shape must be four integers": {"stored_shape": [6, 8, 8]},
        "images must have shape": {"image_shape": [1, 4, 4]},
        "per must be one of": {"per": "row"},
    }.items():
        with pytest.raises(ValueError, match=message):
            restore(changes)


@pytest.mark.parametrize(
    ("store", "tolerance"), [("float32", 0), ("float16", 2e-3), ("uint8", 2e-2), ("uint4", 0.3)]
)
@pytest.mark.parametrize("space", ["pixel", "input"])
def test_a_chosen_precision_keeps_the_inputs_up_to_its_error(blobs, store, tolerance, space):
    syn = image_set(blobs, space)
    stored, entry = store_as(syn, store)
    inputs, expected = (s.materialise(CPU)[0] for s in (stored, syn))
    assert inputs.dtype == torch.float32
    assert float((inputs - expected).abs().max()) <= tolerance
    assert entry["max_error"] <= tolerance and entry["precision"].startswith(
        ("float", "uint8", "8 bits", "4 bits")
    )
    pixels = 6 * 64
    images = {"float32": 4 * pixels, "float16": 2 * pixels, "uint8": pixels, "uint4": pixels // 2}[store]
    assert stored.stored_bytes().get("images", stored.stored_bytes().get("codes")) == images


def test_only_sets_of_images_have_a_precision(blobs):
    assert check_store({}, ("trees",), "graph") is None
    assert check_store({"store": "uint8"}, ("images", "graphs"), "image") is None
    assert "method.store must be float32, float16, uint8" in check_store(
        {"store": "int8"}, ("images",), "image"
    )
    assert "requires a method that returns images" in check_store({"bits": 4}, ("compensated",), "image")
    natural = image_set(blobs, "pixel", 3)
    syn = CompensatedSet.on(natural, torch.zeros(1, 1, *blobs.shape))
    with pytest.raises(
        ValueError, match=r"only sets of images alone can be stored .* dd-bench evaluate set=FOLDER"
    ):
        quantise_set(syn, Quantiser(4))


def test_sizes_of_codes():
    constant = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert code_sizes(constant, 2)["entropy bits"] == 4 * 32
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 4, (50, 1, 16, 16), generator=draw, dtype=torch.uint8)
    sizes = code_sizes(noise, 2)
    raw = noise.numel() * 2
    assert raw <= sizes["entropy bits"] + 10 <= 1.02 * raw + 10 + 128
    for name in ("zstd bytes", "PNG bytes", "WebP bytes"):
        assert 0.98 * raw <= 8 * sizes[name] <= 1.35 * raw, name
    assert "PNG bytes" not in code_sizes(noise.expand(50, 2, 16, 16), 2)


def test_equal_cells_in_more_groups_do_not_warn():
    """scikit-learn warns that there are fewer different points than clusters."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coded = quantise(torch.ones(3, 1, 4, 4), Quantiser(4, "image", groups=2))
    assert coded.group.tolist() in ([0, 0, 0], [1, 1, 1])
