"""Curves of accuracy against images per class (IPC): a fitted power law, and the IPC at which two curves meet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from dd_bench.api import paired_difference, t_interval

Curve = Mapping[int, Sequence[float]]
"""Maps the IPC to the accuracies of the networks, in [0, 1] and in the same order at every IPC."""

MIN_NETWORKS = 5
"""Smallest number of networks for the statement that a control is not below a set: few networks show no difference."""
_SMALLEST_SCALE, _SMALLEST_EXPONENT = 5e-4, 5e-3
"""Smaller values are printed as 0: the fitted curve is constant."""
_BOUNDS = {"limit": 1.0, "scale": 10.0, "exponent": 10.0}
"""Largest values of the parameters of a fit."""
_AT_BOUND = 5e-4
"""A parameter this close to its bound is printed as the bound."""


class PowerLaw(NamedTuple):
    """The curve `limit - scale * ipc^-exponent`, and the largest absolute difference from the fitted means."""

    limit: float
    scale: float
    exponent: float
    residual: float

    @property
    def rises(self) -> bool:
        """Whether the accuracy rises with the IPC. Otherwise the limit and the scale have no meaning of their own."""
        return self.scale >= _SMALLEST_SCALE and self.exponent >= _SMALLEST_EXPONENT

    @property
    def not_identified(self) -> list[str]:
        """The parameters at which the fit stopped because of a bound. The data do not determine their values."""
        return [name for name, bound in _BOUNDS.items() if getattr(self, name) >= bound - _AT_BOUND]

    def ipc_of(self, accuracy: float) -> float | None:
        """Return the IPC with this accuracy.

        None if the curve does not reach it or does not rise, or if a parameter is not identified.
        """
        if accuracy >= self.limit or not self.rises or self.not_identified:
            return None
        power = math.log(self.scale / (self.limit - accuracy)) / self.exponent
        return math.exp(power) if power < 50 else None


def fit_power_law(curve: Curve) -> PowerLaw | None:
    """Fit a power law to the mean accuracies by least squares; None for fewer than four IPCs.

    All parameters are from 0 to their values in `_BOUNDS`. Accuracies that still rise at the largest IPC often do not
    determine the limit, see `PowerLaw.not_identified`.
    """
    if len(curve) < 4:
        return None
    import numpy as np
    from scipy.optimize import curve_fit  # slow to import

    ipcs = np.array(sorted(curve), float)
    means = np.array([fmean(curve[int(k)]) for k in ipcs])

    def law(k: np.ndarray, limit: float, scale: float, exponent: float) -> np.ndarray:
        return limit - scale * k**-exponent

    start = (min(1.0, float(means.max()) + 0.05), 0.3, 0.5)
    found, _ = curve_fit(
        law, ipcs, means, p0=start, bounds=([0, 0, 0], list(_BOUNDS.values())), max_nfev=10_000
    )
    limit, scale, exponent = (float(v) for v in found)
    return PowerLaw(limit, scale, exponent, float(np.abs(law(ipcs, *found) - means).max()))


def equivalent_ipc(curve: Mapping[int, float], accuracy: float) -> float | None:
    """Return the smallest IPC at which the curve of one network reaches an accuracy; None if it does not.

    Between two measured IPCs, the accuracy is interpolated linearly in log(IPC). The result is the smallest measured
    IPC if the accuracy is reached there.
    """
    previous: tuple[int, float] | None = None
    for ipc, value in sorted(curve.items()):
        if value >= accuracy:
            if previous is None:
                return float(ipc)
            low, start = previous
            share = (accuracy - start) / (value - start)
            return float(low * (ipc / low) ** share)
        previous = ipc, value
    return None


def describe_fit(name: str, curve: Curve) -> str:
    """Return the fitted power law of a curve as text, with the range of IPCs that it was fitted to."""
    law = fit_power_law(curve)
    if law is None:
        return f"{name}: no fit, which requires at least four IPCs, got {', '.join(map(str, sorted(curve)))}"
    if not law.rises:
        means = [100 * fmean(values) for values in curve.values()]
        return (
            f"{name}: no fit, because the accuracy does not rise from IPC {min(curve)} to {max(curve)}, where it is "
            f"from {min(means):.1f} to {max(means):.1f} %"
        )
    at_bound = [f"{key} is not identified (at its bound {_BOUNDS[key]:g})" for key in law.not_identified]
    return (
        f"{name}: accuracy = {law.limit:.3f} - {law.scale:.3f} * ipc^-{law.exponent:.2f}, fitted to IPC {min(curve)} "
        f"to {max(curve)}, largest residual {100 * law.residual:.1f} points"
        + "".join(f"; the {text}" for text in at_bound)
    )


def describe_enough(name: str, control: Curve, syn: Curve) -> str:
    """Return from which measured IPC on a control is not significantly worse than the set, as text.

    At that IPC and at all larger ones that were measured for both, the 95 % interval of the paired difference set -
    control contains 0 or is below it. This is not stated for fewer than `MIN_NETWORKS` networks.
    """
    shared = sorted(control.keys() & syn.keys())
    if not shared:
        return f"{name}: no comparison with the set, because no IPC was measured for both"
    if len(syn[shared[0]]) < 2:
        return f"{name}: no comparison with the set, which requires at least two networks"
    differences = {k: paired_difference(syn[k], control[k]) for k in shared}
    enough: list[int] = []
    for k in reversed(shared):
        if differences[k].low > 0:
            break
        enough.insert(0, k)
    at = enough[0] if enough else shared[-1]
    d = differences[at]
    text = f"set - {name} at IPC {at}: {100 * d.mean:.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}] points, n={d.n}"
    if not enough:
        return f"{name} is below the set at the largest measured IPC ({text})"
    if d.n < MIN_NETWORKS:
        return (
            f"{name}: not shown from which IPC on it is not significantly below the set, which requires at least "
            f"{MIN_NETWORKS} networks ({text})"
        )
    return f"{name} is not significantly below the set from IPC {at} on, measured up to {shared[-1]} ({text})"


def describe_equivalent(name: str, control: Curve, accuracies: Sequence[float], ipc: int) -> str:
    """Return how many images per class of a control reach the accuracies of the set at `ipc`, as text.

    The result is the geometric mean over networks with its 95 % interval. If a network does not reach the accuracy at
    the measured IPCs, the text says so, and gives the IPC of the fitted power law as an extrapolation, or why the law
    has none.
    """
    n = len(accuracies)
    found = [equivalent_ipc({k: v[i] for k, v in control.items()}, accuracies[i]) for i in range(n)]
    reached = [k for k in found if k is not None]
    if len(reached) == n:
        logs = [math.log(k) for k in reached]
        interval = ""
        if n > 1:
            low, high = (math.exp(v) for v in t_interval(logs))
            interval = f" [{low:.3g}, {high:.3g}]"
        at_start = sum(k <= min(control) for k in reached)
        note = f"; at most {min(control)} for {at_start} of {n} networks" if at_start else ""
        return f"{name} reaches the accuracy of the set at {math.exp(fmean(logs)):.3g}{interval} images per class{note}"
    text = (
        f"{name} does not reach the accuracy of the set at IPC {ipc} with up to {max(control)} images per class for "
        f"{n - len(reached)} of {n} networks"
    )
    law = fit_power_law(control)
    beyond = None if law is None else law.ipc_of(fmean(accuracies))
    if beyond is not None and beyond > max(control):
        return f"{text}; extrapolated beyond the measured range: {beyond:.3g}"
    if law is not None and law.rises and law.not_identified:
        return f"{text}; not extrapolated, because the {law.not_identified[0]} of the fit is not identified"
    return text
