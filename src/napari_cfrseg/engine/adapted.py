"""Numbers that finished objects taught a network; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

#: light parameters that a network may have
MOST_NUMBERS = 100_000


@dataclass(frozen=True, slots=True)
class Adaptation:
    """Numbers to add to a network's light parameters.

    Attributes
    ----------
    base
        SHA-256 of the light parameters of the network it was made for.
    numbers
        To add to them, in their order.
    gain
        IoU that first clicks gained on finished objects that did not teach.
    """

    base: str
    numbers: tuple[float, ...]
    gain: float = 0.0
