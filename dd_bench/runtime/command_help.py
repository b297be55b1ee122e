"""Parsers of the commands that are not Hydra applications: their `--help` has a description and examples."""

from __future__ import annotations

import argparse


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps the description, and keeps the lines of examples, formats and keys."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(("example", "formats", "keys")):
            return super()._fill_text(text, width, indent)
        paragraphs = text.split("\n\n")
        return "\n\n".join(argparse.HelpFormatter._fill_text(self, p, width, indent) for p in paragraphs)


def command_parser(name: str, description: str | None, *lines: str) -> argparse.ArgumentParser:
    """Return the parser of the command `dd-bench NAME`.

    Args:
        name: name of the command.
        description: what the command does; the docstring of its function.
        *lines: examples.
    """
    return argparse.ArgumentParser(
        f"dd-bench {name}", description=description, epilog=examples(lines), formatter_class=HelpFormatter
    )


def examples(lines: tuple[str, ...]) -> str:
    """Return the text below the arguments."""
    return "\n  ".join(["example:" if len(lines) == 1 else "examples:", *lines])
