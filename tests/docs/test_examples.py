"""The Python examples of README and documentation run, block after block, in a folder that sees the committed sets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "docs/get_started/train_on_a_set.md"
PAGES = (
    "README.md",
    "docs/get_started/python_api.md",
    pytest.param(TRAINING, marks=pytest.mark.slow),  # the import of timm takes five seconds
)
SHORTER = {TRAINING: ("epochs=(152, 149)", "epochs=(1, 1)")}
"""Text of a page and its replacement, so that its examples take less time."""


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("leaderboards").symlink_to(ROOT / "leaderboards")
    text, (old, new) = (ROOT / page).read_text(), SHORTER.get(page, ("", ""))
    assert old in text
    text = text.replace(old, new) if old else text
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(examples) > 1
    names = {"__name__": "example"}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"{page}, example {number}", "exec"), names)
