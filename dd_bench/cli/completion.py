"""`dd-bench completion`: print the script that completes commands, options, groups, choices and keys in a shell.

The script calls `dd-bench completion --query LINE`. Completion of keys and choices is that of Hydra.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO

from dd_bench.cli.commands import HYDRA_COMMANDS, LEADERBOARD_COMMANDS, OTHER_COMMANDS
from dd_bench.runtime.command_help import command_parser

SHELLS = {
    "bash": """_dd_bench() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}"
    COMPREPLY=($(dd-bench completion --query "$line" 2>/dev/null))
    local word="${line##* }" cut
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        cut="${word%"${word##*=}"}"
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
}
complete -o nospace -o default -F _dd_bench dd-bench
""",
    "zsh": """_dd_bench() {
    local -a found
    found=("${(@f)$(dd-bench completion --query "$LBUFFER" 2>/dev/null)}")
    found=(${found:#})
    if (( $#found )); then compadd -Q -S '' -- $found; else _files; fi
}
compdef _dd_bench dd-bench
""",
    "fish": """function __dd_bench
    set -l found (dd-bench completion --query (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
        return
    end
    set -l word (commandline -ct)
    set -l key (string match -r '^.*=' -- $word)
    for path in (__fish_complete_path (string replace -r '^.*=' '' -- $word))
        printf '%s\\n' "$key$path"
    end
end
complete -c dd-bench -f -a '(__dd_bench)'
""",
}


def completion_command(arguments: Sequence[str]) -> int:
    """Print the script that completes commands, options, groups, choices and keys in a shell: bash, zsh or fish."""
    parser = command_parser(
        "completion",
        completion_command.__doc__,
        "dd-bench completion bash > ~/.dd-bench.bash    then: source it in ~/.bashrc",
        "dd-bench completion zsh > ~/.dd-bench.zsh      then: source it in ~/.zshrc, after compinit",
        "dd-bench completion fish > ~/.config/fish/completions/dd-bench.fish",
    )
    parser.add_argument("shell", nargs="?", choices=tuple(SHELLS), help="the shell")
    parser.add_argument("--query", metavar="LINE", help="print the completions of a line up to the cursor")
    args = parser.parse_args(arguments)
    if args.query is not None:
        sys.stdout.writelines(f"{word}\n" for word in completions(args.query))
        return 0
    if args.shell is None:
        parser.error("the shell is missing. Example: dd-bench completion bash")
    sys.stdout.write(SHELLS[args.shell])
    return 0


def completions(line: str) -> list[str]:
    """Return the words that can replace the last word of a line such as `dd-bench run method=d`.

    A choice of a group with the value so far replaces the whole word: `method=dm`. Files are completed by the shell.
    """
    words = line.split(" ")[1:]
    typed = [word for word in words if word]
    if len(words) <= 1:
        return [
            name for name in (*HYDRA_COMMANDS, *OTHER_COMMANDS) if name.startswith(words[0] if words else "")
        ]
    if words[-1].startswith("-") and typed[0] in OTHER_COMMANDS:
        return [name for name in _options(typed) if name.startswith(words[-1])]
    if typed[0] in (*HYDRA_COMMANDS, "tune"):
        return _overrides(line)
    if typed[0] == "leaderboard" and len(words) == 2:
        return [name for name in LEADERBOARD_COMMANDS if name.startswith(words[-1])]
    if typed[0] == "list":
        from dd_bench.cli.inspect import GROUPS

        return [name for name in GROUPS if name.startswith(words[-1])]
    if typed[0] == "completion":
        return [name for name in SHELLS if name.startswith(words[-1])]
    return []


def _options(words: Sequence[str]) -> list[str]:
    """Return the options of a command as its `--help` lists them."""
    from hydra.utils import get_method  # slow to import

    verb = [word for word in words[1:2] if words[0] == "leaderboard" and word in LEADERBOARD_COMMANDS]
    with redirect_stdout(StringIO()) as text, suppress(SystemExit):
        get_method(OTHER_COMMANDS[words[0]][0])([*verb, "--help"])
    lines = re.findall(r"^  (-.+?)(?:  |$)", text.getvalue(), re.MULTILINE)
    return sorted(name for line in lines for name in re.findall(r"--[\w-]+", line))


def _overrides(line: str) -> list[str]:
    """Return the groups, choices and keys of the configuration that continue the last word."""
    from dd_bench.cli.hydra_patch import complete_overrides

    found = complete_overrides(line.partition(" ")[2].partition(" ")[2])
    return sorted(word for word in found if not word.startswith(("hydra", "_")) and "._" not in word)
