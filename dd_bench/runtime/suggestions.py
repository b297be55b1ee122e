"""Messages for misspelt names, with the most similar known names, and for missing keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the message for a key that is not one of `known`, with up to three similar keys.

    >>> unknown_key("iterations", ["method.iterations", "ipc"])
    'iterations is not a configuration key. Did you mean method.iterations?'
    """
    similar = did_you_mean(_similar_keys(key, list(known)))
    node = "hydra" if key.startswith("hydra.") else "job"
    return f"{key} is not a configuration key{similar or f'. To list all keys: dd-bench run --cfg {node}'}"


class MissingKeyError(ValueError):
    """Required configuration keys are missing.

    Attributes:
        keys: the dotted keys.
    """

    def __init__(self, keys: Sequence[str]):
        super().__init__("; ".join(f"{key} is missing. Use +{key}=VALUE" for key in keys))
        self.keys = list(keys)


def did_you_mean(names: Sequence[str]) -> str:
    """Return `. Did you mean a, b or c?`, or an empty text if there are no names."""
    *first, last = names or [""]
    text = f"{', '.join(first)} or {last}" if first else last
    return f". Did you mean {text}?" if names else ""


def _similar_keys(key: str, known: list[str]) -> list[str]:
    """Return keys with the same last part as `key`, those of its group first; if there are none, similar keys."""
    group, last = key.partition(".")[0], key.rpartition(".")[2]
    by_part: dict[str, list[str]] = {}
    for name in sorted(known, key=lambda k: (k.partition(".")[0] != group, k.count("."), k)):
        by_part.setdefault(name.rpartition(".")[2], []).append(name)
    if last in by_part:
        return by_part[last][:3]
    similar = [name for part in get_close_matches(last, by_part, 2, 0.75) for name in by_part[part]]
    if similar or any(name.partition(".")[0] == group for name in known):
        return similar[:3]
    return get_close_matches(key, known, 3, 0.75)  # the group is misspelt
