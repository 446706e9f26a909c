"""How good a propagated mask probably is, from what can be seen without the truth.

    IoU to expect = σ(b + Σ wᵢ · eᵢ),   σ the logistic function

with eᵢ the entries of :class:`Evidence`, and b and w fitted to the IoU that planes of
validation stacks had (``benchmarks/stacks.py calibrate`` prints them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_cfrseg.engine.propagation.values import Evidence

#: b, then the weights in the order of ``features``
COEFFICIENTS: tuple[float, ...] = (-1.267, 0.008, 1.198, 1.212, 1.505, -2.024)


def features(evidence: Evidence) -> tuple[float, ...]:
    """Return what the weights are multiplied with, after the leading 1."""
    return (
        1.0,
        evidence.agreement,
        evidence.certainty,
        evidence.passes,
        evidence.trust,
        math.log1p(evidence.distance),
    )


def confidence_of(
    evidence: Evidence, coefficients: Sequence[float] = COEFFICIENTS
) -> float:
    """Return the IoU to expect of a plane's mask, in (0, 1)."""
    total = sum(w * f for w, f in zip(coefficients, features(evidence), strict=True))
    return 1 / (1 + math.exp(-total))
