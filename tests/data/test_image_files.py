"""Listing of class folders: files of operating systems and editors are ignored, other formats are counted."""

import pytest
from PIL import Image

from dd_bench.data.image_files import find_images, subfolders


@pytest.fixture
def folder(tmp_path):
    """Two classes with two images each, among files that tools have added."""
    for name in (
        *("ant/0.png", "ant/1.png", "bee/0.png", "bee/deeper/1.JPG"),
        *(".ipynb_checkpoints/0.png", "__MACOSX/0.png", "@eaDir/0.png", ".git/0.png"),
        *(
            "__pycache__/0.png",
            "$RECYCLE.BIN/0.png",
            "$Recycle.Bin/x/0.png",
            "#recycle/0.png",
            "ant/__pycache__/0.png",
        ),
        *("ant/._0.png", "ant/.ipynb_checkpoints/0-checkpoint.png", "bee/__MACOSX/0.png", "bee/@eaDir/0.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def test_hidden_files_and_folders_are_neither_classes_nor_images(folder):
    assert subfolders(folder) == ["ant", "bee"]
    paths, labels = find_images(folder, {"ant": 0, "bee": 1})
    names = [path.relative_to(folder).as_posix() for path in paths]
    assert names == ["ant/0.png", "ant/1.png", "bee/0.png", "bee/deeper/1.JPG"]
    assert labels.tolist() == [0, 0, 1, 1]


def test_files_in_other_formats_are_counted_and_named(folder, messages):
    for name in ("2.gif", "3.gif", "4.HEIC", "notes.txt", "Thumbs.db", "README"):
        (folder / "ant" / name).write_bytes(b"")
    find_images(folder, {"ant": 0, "bee": 1})
    (message,) = messages
    assert "4 files are not read because of their format: 2 .gif, 1 .heic, 1 without extension" in message


def test_a_class_with_only_other_formats_is_an_error_that_names_them(folder):
    (folder / "cat").mkdir()
    (folder / "cat" / "0.gif").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"cat contains no image in a supported format .*, only 1 \.gif"
    ):
        find_images(folder, {"ant": 0, "cat": 1})
