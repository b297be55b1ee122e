"""The number of networks that are trained in lock step, as one batched network."""

from __future__ import annotations


class LockStep:
    """How many networks are trained in lock step at most; 1: one after the other.

    The number is halved when the memory of the device does not suffice, and stays so for the rest of the run.

    Attributes:
        networks: the maximum number.
    """

    def __init__(self, networks: int):
        """Start with a maximum of `networks`."""
        self.networks = networks

    def __repr__(self) -> str:
        return f"LockStep({self.networks})"

    def halve(self, tried: int) -> None:
        """Set the maximum to half of the number of networks that were `tried`."""
        self.networks = max(1, tried // 2)
