"""DELT's early-late schedule: some images of a class are optimised from the start, others only later."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from .images import Images


def group_sizes(ipc: int, rounds: int) -> list[int]:
    """Return how many images of a class enter in each round: equally many, one more in the first `ipc % rounds`."""
    return [ipc // rounds + (g < ipc % rounds) for g in range(rounds)]


class Rounds(Images):
    """Images of which a group enters at the start of each round. An image stays in the batch until the end.

    With T iterations and G rounds, group g (from 0) enters at iteration ceil(g T / G), so it takes part in about
    T (1 - g / G) iterations. Images that have not entered have no gradient, so Adam does not change them. One Adam is
    used for all images, as in the released code: when an image enters, its moments are zero, but Adam's bias correction
    is that of a later step.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, rounds: int, iterations: int):
        """Take images `x (b, c, h, w)`, sorted by class, equally many of each class, in the order in which they enter.

        Args:
            x: initial images.
            y: their classes `(b,)`.
            classes: number of different classes in `y`.
            rounds: number of rounds G.
            iterations: total number of iterations T.
        """
        super().__init__(x, y)
        self.rounds, self.iterations = rounds, iterations
        ipc = len(x) // classes
        entered = list(accumulate(group_sizes(ipc, rounds)))
        slot = torch.arange(ipc, device=x.device).repeat(classes)
        self.rows = [None if n == ipc else torch.nonzero(slot < n)[:, 0] for n in entered]
        self.shapes = len(set(entered))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """See `Images`."""
        rows = self.rows[self.round_of(step)]
        return (self.x, self.y) if rows is None else (self.x[rows], self.y[rows])

    def round_of(self, step: int) -> int:
        """Return the round of an iteration."""
        return step * self.rounds // self.iterations

    def current(self) -> tuple[Tensor, Tensor]:
        """See `Images`."""
        return self.x, self.y
