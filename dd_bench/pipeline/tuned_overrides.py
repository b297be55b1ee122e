"""`tuning=FILE`: apply the values that `dd-bench tune` has chosen. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dd_bench.records.tuning import load_tuning


def with_tuned_values(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which the chosen values are inserted before `tuning=FILE`.

    Arguments that are not overrides are not changed.

    Raises:
        ValueError: the file is not valid, `tuning` has several values, or another override sets a searched key.
    """
    words = [o for o in overrides if re.match(r"\+{0,2}tuning=", o)]
    files = [_file(word) for word in words]
    if files in ([], [None]):
        return list(overrides)
    word, file = words[0], files[0]
    if len(files) > 1 or file is None:
        raise ValueError("tuning must be given once. Example: tuning=runs/tune/NAME/tuning.json")
    tuning = load_tuning(file)
    keys = {key.lstrip("+") for key in tuning.space}
    for other in overrides:
        if (key := other.partition("=")[0].lstrip("+~")) in keys:
            raise ValueError(
                f"{other}: {key} was chosen by {word}. Remove {other}, or remove {word} and give all values"
            )
    found = overrides.index(word)
    return [*overrides[:found], *tuning.overrides(), *overrides[found:]]


def _file(word: str) -> Path | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ValueError(f"{word} cannot be parsed. Put the path in quotes: tuning='\"FILE\"'") from error
    if override.is_sweep_override():
        raise ValueError(f"tuning must be one file, got {word}. Start one command for each file")
    value = override.value()
    return None if value is None else Path(str(value))
