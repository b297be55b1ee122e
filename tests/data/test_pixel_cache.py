"""Stored hashes and stored decoded images: reused by later processes, and never outdated."""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.data import image_cache, image_index, pixel_cache
from dd_bench.data.image_decoder import Decoder, decode_all
from dd_bench.data.image_index import index_images
from dd_bench.data.pixel_cache import cached_pixels


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def paths(tmp_path):
    draw = np.random.default_rng(0)
    result = [tmp_path / "data" / f"{i}.png" for i in range(5)]
    result[0].parent.mkdir()
    for path in result:
        Image.fromarray(draw.integers(0, 256, (6, 4, 3), dtype=np.uint8)).save(path)
    return result


@pytest.fixture
def settled(monkeypatch):
    """Let the clock of the index run an hour ahead, as if the files had been written an hour ago."""
    now = time.time
    monkeypatch.setattr(image_index.time, "time", lambda: now() + 3600)


def count_calls(monkeypatch, module, name):
    calls = []
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: (calls.append(a), original(*a))[1])
    return calls


class TestIndex:
    def test_files_are_read_once(self, home, paths, settled, monkeypatch):
        read = count_calls(monkeypatch, image_index, "_inspect_file")
        first = index_images(paths[0].parent, paths)
        assert len(read) == 5 and {(i.height, i.width) for i in first} == {(6, 4)}
        assert index_images(paths[0].parent, paths) == first and len(read) == 5

    def test_an_edit_with_the_same_length_and_modification_time_is_detected(self, home, paths, settled):
        before = index_images(paths[0].parent, paths)
        content, times = bytearray(paths[2].read_bytes()), paths[2].stat()
        content[-1] ^= 1
        paths[2].write_bytes(bytes(content))
        os.utime(paths[2], ns=(times.st_atime_ns, times.st_mtime_ns))
        after = index_images(paths[0].parent, paths)
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True]

    def test_a_file_that_was_just_written_is_read_again(self, home, paths, monkeypatch):
        """The clock of a file system is coarse: a second edit could have the same times."""
        read = count_calls(monkeypatch, image_index, "_inspect_file")
        for _ in range(2):
            index_images(paths[0].parent, paths)
        assert len(read) == 10

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "files": 3}'])
    def test_a_damaged_index_is_computed_again(self, home, paths, settled, content):
        first = index_images(paths[0].parent, paths)
        (file,) = (home / "images").glob("index-*.json")
        file.write_text(content)
        assert index_images(paths[0].parent, paths) == first


class TestPixels:
    def test_decoded_once_and_equal_to_decoding(self, home, paths, monkeypatch):
        decoder, hashes = Decoder(3, "crop"), [f"{i}" for i in range(5)]
        first = cached_pixels(paths, hashes, decoder)
        assert torch.equal(first, decode_all(paths, decoder)) and first.dtype == torch.uint8
        decoded = count_calls(monkeypatch, Decoder, "__call__")
        assert torch.equal(cached_pixels(paths, hashes, decoder), first) and not decoded
        cached_pixels(paths, hashes, Decoder(3, "squash"))
        cached_pixels(paths, [*hashes[:4], "changed"], decoder)
        assert len(decoded) == 10

    def test_writing_to_the_tensor_does_not_change_the_cache(self, home, paths):
        decoder, hashes = Decoder(3, "crop"), [""] * 5
        first = cached_pixels(paths, hashes, decoder)
        expected = first.clone()
        first.zero_()
        assert torch.equal(cached_pixels(paths, hashes, decoder), expected)

    def test_an_error_leaves_no_file(self, home, paths):
        paths[3].write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"cannot read the image .*3\.png"):
            cached_pixels(paths, [""] * 5, Decoder(3, "crop"))
        assert not [f for f in (home / "images").iterdir() if f.suffix != ".lock"]

    def test_without_a_writable_cache_images_are_kept_in_memory(self, tmp_path, paths, monkeypatch, messages):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "file"))
        index_images(paths[0].parent, paths)
        pixels = cached_pixels(paths, [""] * 5, Decoder(3, "crop"))
        assert torch.equal(pixels, decode_all(paths, Decoder(3, "crop")))
        assert sum("export DD_BENCH_HOME=FOLDER" in message for message in messages) == 2

    def test_a_truncated_file_is_an_error(self, home, paths):
        cached_pixels(paths, [""] * 5, Decoder(3, "crop"))
        (file,) = (home / "images").glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"is damaged.* rm .*\.safetensors"):
            cached_pixels(paths, [""] * 5, Decoder(3, "crop"))


def test_the_files_that_were_not_used_for_the_longest_time_are_deleted(home, paths, monkeypatch):
    """Before, the folder grew without bound."""
    decoder, now = Decoder(3, "crop"), time.time()

    def add(name):
        before = set((home / "images").glob("*.safetensors"))
        cached_pixels(paths, [name] * 5, decoder)
        return (set((home / "images").glob("*.safetensors")) - before).pop()

    files = [add(name) for name in "abc"]
    monkeypatch.setattr(image_cache, "MAX_BYTES", 3 * files[0].stat().st_size)
    files.append(add("e"))
    assert all(file.exists() for file in files), "files that were just used must remain"
    for file, days in zip(files, (3, 2, 4, 5), strict=True):
        os.utime(file, (now - days * 86_400,) * 2)
    cached_pixels(paths, ["c"] * 5, decoder)  # is used now
    killed = home / "images" / "x.partial"
    killed.write_bytes(bytes(500))
    os.utime(killed, (now - 9 * 86_400,) * 2)
    files.append(add("d"))
    assert [f.exists() for f in (*files, killed)] == [False, True, True, False, True, False]
    assert not files[0].with_suffix(".lock").exists()


def test_the_version_of_the_decoder_is_part_of_the_key(home, paths, monkeypatch):
    decoded = count_calls(monkeypatch, Decoder, "__call__")
    cached_pixels(paths, [""] * 5, Decoder(3, "crop"))
    monkeypatch.setattr(pixel_cache.PIL, "__version__", "0")
    cached_pixels(paths, [""] * 5, Decoder(3, "crop"))
    assert len(decoded) == 10
