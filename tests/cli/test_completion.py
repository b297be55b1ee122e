"""Completion of the command line in a shell."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dd_bench.cli.completion import SHELLS, completions


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dd-bench comp", ["completion"]),
        ("dd-bench run method=mt", ["method=mtt"]),
        ("dd-bench run -m ipc=1 method=dm method.lr", ["method.lr_img="]),
        ("dd-bench evaluate checkp", ["checkpoint_seconds="]),
        ("dd-bench list prot", ["protocol"]),
        ("dd-bench completion f", ["fish"]),
        ("dd-bench push runs/", []),
        ("dd-bench run method=nothing method.", []),
    ],
)
def test_completions(line, expected):
    assert completions(line) == expected


def test_all_commands():
    assert {"run", "show", "leaderboard"} < set(completions("dd-bench ")) == set(completions("dd-bench"))


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_valid(shell, dd_bench, tmp_path):
    done = dd_bench("completion", shell)
    assert done.code == 0 and "dd-bench completion --query" in done.text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(done.text)
    subprocess.run([shell, "-n", "script"], cwd=tmp_path, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "answer", "replies"),
    [
        (
            "dd-bench run method=d",
            "method=dc\nmethod=dm",
            ["dc", "dm"],
        ),  # bash replaces only the text after "="
        ("dd-bench ru", "run", ["run"]),
        ("dd-bench run ip", "ipc=", ["ipc="]),
    ],
)
def test_bash(tmp_path, line, answer, replies):
    """The function of the script calls `dd-bench completion --query LINE` and fills COMPREPLY."""
    program = tmp_path / "dd-bench"
    program.write_text(
        f"#!{shutil.which('bash')}\necho \"$3\" > '{tmp_path}/line'\nprintf '%s\\n' '{answer}'\n"
    )
    program.chmod(0o755)
    call = f'COMP_LINE="{line} x"; COMP_POINT={len(line)}; _dd_bench'
    test = f'{SHELLS["bash"]}\n{call}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", test], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == replies
    assert Path(tmp_path / "line").read_text() == f"{line}\n"


def test_wrong_use(dd_bench):
    assert dd_bench("completion").code == 2
    assert "Example: dd-bench completion bash" in dd_bench("completion").text
