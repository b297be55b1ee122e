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
        ("dd-bench leaderboard ta", ["table"]),
        ("dd-bench leaderboard compare runs/", []),
        ("dd-bench leaderboard table --me", ["--methods", "--metrics"]),
        ("dd-bench show runs/sets/NAME --", ["--help", "--open"]),
        ("dd-bench export SET TO --no", ["--no-lossless"]),
        ("dd-bench tune method=mt", ["method=mtt"]),
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


@pytest.fixture
def environment(tmp_path):
    """A program `dd-bench` that stores the queried line and prints the answer, and a folder without user files."""
    program = tmp_path / "dd-bench"
    program.write_text(f"#!/bin/sh\nprintf %s \"$3\" > '{tmp_path}/line'\ncat '{tmp_path}/answer'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("typed", "answer", "completed"),
    [
        (
            "dd-bench run method=d",
            "method=dc\nmethod=dm\n",
            ["method=dc", "method=dm"],
        ),  # not the file `dd-bench`
        ("dd-bench show pict", "", ["picture.png"]),
        ("dd-bench evaluate set=pict", "", ["set=picture.png"]),
    ],
)
def test_fish(tmp_path, environment, typed, answer, completed):
    """fish itself prints its completions of a line: the answer, or files if there is none."""
    (tmp_path / "answer").write_text(answer)
    (tmp_path / "picture.png").touch()
    (tmp_path / "script").write_text(SHELLS["fish"])
    command = ["fish", "-c", f"source script; complete -C '{typed}'"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == completed
    assert (tmp_path / "line").read_text() == typed


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(
    ("typed", "answer", "completed"),
    [
        ("dd-bench run ip", "ipc=", "dd-bench run ipc="),
        ("dd-bench run method=kc", "method=kcenter", "dd-bench run method=kcenter"),
        ("dd-bench show pict", "", "dd-bench show picture.png "),  # files if there is no answer
    ],
)
def test_zsh(tmp_path, environment, typed, answer, completed):
    """The Tab key in a terminal. Ctrl-X then stores the line and ends the shell."""
    (tmp_path / "answer").write_text(f"{answer}\n")
    (tmp_path / "picture.png").touch()
    (tmp_path / ".zshrc").write_text(
        "autoload -Uz compinit && compinit -u -D\n"
        + SHELLS["zsh"]
        + "store() { print -rn -- $BUFFER > buffer; exit }\n"
        "zle -N store\nbindkey '^X' store\n"
    )
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        ["zsh", "-i"],
        cwd=tmp_path,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.write(ours, f"{typed}\t\x18".encode())
    assert shell.wait(timeout=60) == 0
    os.close(theirs)
    os.close(ours)
    assert (tmp_path / "buffer").read_text() == completed
    assert (tmp_path / "line").read_text() == typed


def test_wrong_use(dd_bench):
    assert dd_bench("completion").code == 2
    assert "Example: dd-bench completion bash" in dd_bench("completion").text
