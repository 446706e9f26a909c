"""Numbers that finished objects taught a network; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

#: light parameters that a network may have
MOST_NUMBERS = 100_000


@dataclass(frozen=True, slots=True)
class Adaptation:
    """Numbers to add to a network's light parameters."""

    base: str  #: SHA-256 of the light parameters of the network it was made for
    numbers: tuple[float, ...]  #: to add to them, in their order
    #: IoU that first clicks gained on finished objects that did not teach
    gain: float = 0.0
