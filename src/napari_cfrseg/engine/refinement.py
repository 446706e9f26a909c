"""Standard, CFR-n and A-CFR-n inference: one loop over a callable.

CFR-ICL's cascade-forward refinement feeds a mask back while the clicks stay as they
are::

    Y⁰ = f(x, clicks, Yᵖʳᵉᵛ)          standard inference
    Yⁱ = f(x, clicks, Yⁱ⁻¹)           i = 1 … n          CFR-n
    … stop when |Yⁱ > t  xor  Yⁱ⁻¹ > t| ≤ 20 pixels      A-CFR-n

The window is fixed for the whole loop, so only a network's ``refine`` stage repeats,
and changed pixels are counted on the network's grid (the published evaluator counts
on the full image; so do the ``paper-*`` protocols). This module needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

ProbT = TypeVar("ProbT")

RefinementKind = Literal["standard", "cfr", "a-cfr"]
#: more steps than anyone waits for
MOST_STEPS = 1000
_NAME = re.compile(r"(?P<kind>a-?cfr|cfr)-?(?P<steps>\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refinement:
    """How often a click's mask is fed back."""

    #: "standard" (never), "cfr" (always ``extra_steps`` times, the n of CFR-n) or
    #: "a-cfr" (at most that often, until a step changed at most ``stop_changed_px``
    #: pixels of the grid)
    kind: RefinementKind = "standard"
    extra_steps: int = 0
    stop_changed_px: int = 20

    def __post_init__(self) -> None:
        if self.kind not in ("standard", "cfr", "a-cfr"):
            msg = f"refinement {self.kind!r}: expected standard, cfr or a-cfr"
            raise ValueError(msg)
        if self.extra_steps < 0 or self.stop_changed_px < 0:
            raise ValueError(f"{self}: steps and changed pixels cannot be negative")
        if self.extra_steps > MOST_STEPS:
            raise ValueError(f"{self}: at most {MOST_STEPS} steps")
        if self.kind == "standard" and self.extra_steps:
            msg = f"standard inference has no extra steps, got {self.extra_steps}"
            raise ValueError(msg)

    @classmethod
    def standard(cls) -> Refinement:
        """One evaluation per click."""
        return cls()

    @classmethod
    def cfr(cls, extra_steps: int) -> Refinement:
        """CFR-n: always n further steps."""
        return cls("cfr", extra_steps)

    @classmethod
    def adaptive(cls, extra_steps: int = 4, stop_changed_px: int = 20) -> Refinement:
        """A-CFR-n: at most n further steps, until the mask stops changing."""
        return cls("a-cfr", extra_steps, stop_changed_px)

    @classmethod
    def parse(cls, name: str) -> Refinement:
        """Read "standard", "CFR-4" or "A-CFR-4" (case and hyphens do not matter)."""
        if name.strip().lower() in ("standard", "none"):
            return cls()
        match = _NAME.fullmatch(name.strip())
        if match is None:
            msg = f"refinement {name!r}: expected standard, CFR-n or A-CFR-n"
            raise ValueError(msg)
        steps = int(match["steps"])
        adaptive = match["kind"].lower().startswith("a")
        return cls.adaptive(steps) if adaptive else cls.cfr(steps)

    def __str__(self) -> str:
        names = {"standard": "standard", "cfr": "CFR", "a-cfr": "A-CFR"}
        if self.kind == "standard":
            return names[self.kind]
        return f"{names[self.kind]}-{self.extra_steps}"


#: Used where no refinement is chosen: the fewest clicks on validation images
#: (README, "What the refinement buys").
DEFAULT_REFINEMENT = Refinement.standard()


def as_refinement(given: Refinement | str | None) -> Refinement:
    """Return a refinement given by itself or by its name; None: the default."""
    if given is None:
        return DEFAULT_REFINEMENT
    return Refinement.parse(given) if isinstance(given, str) else given


def run_cascade(
    step: Callable[[ProbT | None, int], ProbT],
    feedback: ProbT | None,
    refinement: Refinement,
    on_step: Callable[[ProbT, int], None] | None = None,
) -> list[ProbT]:
    """Feed the mask back as often as the refinement says; return each step's answer.

    ``step(feedback, index)`` returns a probability, ``index`` counting from 0; the
    first ``feedback`` is the previous mask's, None where there is none. ``on_step``
    gets the probability and index of each step that another one follows.
    """
    steps: list[ProbT] = []
    for index in range(1 + refinement.extra_steps):
        feedback = step(feedback, index)
        steps.append(feedback)
        is_last = index == refinement.extra_steps
        if index and refinement.kind == "a-cfr" and not is_last:
            is_last = _changed_px(*steps[-2:]) <= refinement.stop_changed_px
        if on_step is not None and not is_last:
            on_step(feedback, index)
        if is_last:
            break
    return steps


def _changed_px(before: Any, after: Any) -> int:
    return int(((before > 0.5) != (after > 0.5)).sum())
