"""Conversion of image files to 8-bit RGB: bit depths, transparency, and images whose range is unknown."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.data.image_decoder import Decoder, decode_all

RAMP = (np.arange(16, dtype=np.uint16) * 4369).reshape(4, 4)  # 0 to 65535


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_greyscale_is_scaled_by_its_full_range(tmp_path, suffix):
    path = tmp_path / f"ramp.{suffix}"
    Image.fromarray(RAMP).save(path)
    assert Decoder(4, "squash")(path).unique().tolist() == [17 * i for i in range(16)]


def white_is_zero(values, bits):
    """Return a TIFF file of greyscale, uint `(16, 16)`, in which 0 is white (PhotometricInterpretation 0)."""
    data = (
        np.packbits(values.astype(np.uint8)).tobytes()
        if bits == 1
        else values.astype(f"<u{bits // 8}").tobytes()
    )
    tags = [
        (256, 16),
        (257, 16),
        (258, bits),
        (259, 1),
        (262, 0),
        (273, 8 + 2 + 12 * 9 + 4),
        (277, 1),
        (278, 16),
    ]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    entries += struct.pack("<HHII", 279, 4, 1, len(data))
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + struct.pack("<I", 0) + data


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_tiff_files_in_which_zero_is_white_are_inverted(tmp_path, bits):
    """Pillow inverts up to 8 bits, so 16 bits were read as a negative."""
    levels = np.arange(16) % 2 if bits == 1 else np.arange(16)
    maximum = 2**bits - 1
    path = tmp_path / "x.tif"
    path.write_bytes(white_is_zero(np.tile(levels * maximum // levels.max(), (16, 1)), bits))
    expected = [255 - 255 * int(level) // int(levels.max()) for level in levels]
    assert Decoder(16, "squash")(path)[0, 0].tolist() == expected


def test_16_bit_values_are_rounded(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    expected = torch.from_numpy((values / 257).round().astype(np.uint8)).expand(3, -1, -1)
    assert torch.equal(Decoder(8, "squash")(tmp_path / "x.png"), expected)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.float32, "32-bit floats"), (np.int32, "32-bit integers")], ids=["float", "int"]
)
def test_values_without_a_fixed_range_are_rejected(tmp_path, dtype, kind):
    path = tmp_path / "x.tif"
    Image.fromarray((RAMP / 65535).astype(dtype)).save(path)
    with pytest.raises(ValueError, match=rf"x\.tif must have 8-bit pixels.* got {kind}"):
        Decoder(4, "squash")(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_require_a_background(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 4))  # the left half is transparent, the right half is black
    path = tmp_path / "x.png"
    image.convert(mode).save(path)
    with pytest.raises(ValueError, match=r"x\.png has transparent pixels.*dataset\.background=white"):
        Decoder(4, "squash")(path)
    white = Decoder(4, "squash", background="white")(path)
    assert bool((white[:, :, :2] == 255).all()) and bool((white[:, :, 2:] == 0).all())
    red = Decoder(4, "squash", background="#ff0000")(path)
    assert red[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP"])
def test_files_with_several_images_are_rejected(tmp_path, kind):
    """Before, only the first frame was read, without a warning."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = tmp_path / "x.png"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(
        ValueError, match=r"x\.png must contain one image, got several .* PNG file in its place"
    ):
        Decoder(4, "squash")(path)
    frames[0].save(path, kind, save_all=True)
    assert Decoder(4, "squash")(path).shape == (3, 4, 4)


def test_further_pictures_of_a_camera_are_ignored(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert bool((Decoder(4, "squash")(tmp_path / "x.jpg") == 255).all())


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    opened, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a: (opened.append(a), original(*a))[1])
    Decoder(4, "squash")(tmp_path / "x.png")
    assert len(opened) == 1


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "rgba.png")
    decoder = Decoder(4, "squash")
    assert torch.equal(decoder(tmp_path / "rgb.png"), decoder(tmp_path / "rgba.png"))


def test_wrong_background():
    with pytest.raises(ValueError, match=r"dataset\.background must be a colour, got 'nocolour'"):
        Decoder(4, "squash", background="nocolour")


def test_decode_all_keeps_the_order_over_several_chunks(tmp_path):
    paths = []
    for i in range(7):
        paths.append(tmp_path / f"{i}.png")
        Image.new("L", (700, 700), i).save(paths[-1])  # 1.5 MB of RGB each, so that a chunk has two images
    assert decode_all(paths, Decoder(700, "squash"))[:, 0, 0, 0].tolist() == list(range(7))
