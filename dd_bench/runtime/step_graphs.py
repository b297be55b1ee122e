"""Whether the steps of networks in lock step are run as CUDA graphs, and whether this was possible."""

from __future__ import annotations


class StepGraphs:
    """The use of CUDA graphs in a run.

    Attributes:
        allowed: whether steps are recorded.
        recorded: number of recorded steps so far.
        failure: why a step could not be recorded; None if this has not happened. After a failure, no step of the run is
            recorded any more.
    """

    def __init__(self, allowed: bool):
        """Start without any recorded step."""
        self.allowed, self.recorded = allowed, 0
        self.failure: str | None = None

    def __repr__(self) -> str:
        return f"StepGraphs({self.allowed})"

    def describe(self) -> str | None:
        """Return how graphs were used, for the record; None if they were not."""
        if self.failure is not None:
            return f"failed: {self.failure[:150]}"
        return f"{self.recorded} recorded" if self.recorded else None
