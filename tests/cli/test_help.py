"""`--help` of every command has a description and an example of that command."""

import pytest
from hydra.utils import get_method

from dd_bench.cli.commands import EXAMPLES, HYDRA_COMMANDS, LEADERBOARD_COMMANDS, OTHER_COMMANDS
from dd_bench.cli.run_help import run_help
from dd_bench.leaderboards.arguments import VERBS

COMMANDS = [
    *((name, []) for name in OTHER_COMMANDS),
    *(("leaderboard", [verb]) for verb in VERBS),
]


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_help_has_a_description_and_an_example(name, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        get_method(OTHER_COMMANDS[name][0])([*arguments, "--help"])
    usage, description, *rest = capsys.readouterr().out.split("\n\n")
    assert end.value.code == 0 and usage.startswith(f"usage: {' '.join(['dd-bench', name, *arguments])}")
    assert len(description.split()) > 5 and description.rstrip().endswith(".")
    examples = [part for part in rest if part.startswith("example")]
    assert examples and f"  {' '.join(['dd-bench', name, *arguments])}" in examples[0]


def test_commands_of_the_leaderboard_are_known():
    assert tuple(VERBS) == LEADERBOARD_COMMANDS


def test_hydra_applications_have_an_example():
    assert EXAMPLES.keys() == HYDRA_COMMANDS.keys()
    for command, example in EXAMPLES.items():
        assert example.startswith(f"dd-bench {command} ")
        text = run_help(command, HYDRA_COMMANDS[command], [])
        assert f"example: {example}" in text and HYDRA_COMMANDS[command] in text
