"""Checks of the arguments of methods."""

from __future__ import annotations

from collections.abc import Sequence


def check_at_least(minimum: int, **arguments: int | None) -> None:
    """Raise ValueError if an argument is less than `minimum`. None is allowed."""
    for name, value in arguments.items():
        if value is not None and value < minimum:
            raise ValueError(
                f"method.{name} must be >= {minimum}, got {value}. Example: method.{name}={minimum}"
            )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError if an argument is none of its choices."""
    if value not in choices:
        raise ValueError(
            f"method.{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value}. "
            f"Example: method.{name}={choices[0]}"
        )
