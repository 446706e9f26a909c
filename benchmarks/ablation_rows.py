"""The rows of the papers' ablation tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from network_variants import VariantConfig

from cfrseg_training.loop.augmentation import SuemRecipe
from cfrseg_training.loop.training_step import RoundsConfig

DEFAULT = VariantConfig()
#: RITM's scheme: up to three rounds without gradient, then one with it
NFL = RoundsConfig(weights=(1.0,), earlier=3, refined=0.0, started=0.0)
ICL = RoundsConfig(weights=(1.0, 2.0, 3.0), refined=0.0, started=0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    ``swapped``: attributes of FFCM that are set in the shipped default network, which
    is then judged without any training.
    """

    variant: VariantConfig = DEFAULT
    rounds: RoundsConfig = ICL
    suem: SuemRecipe | None = None
    seeds: int = 1
    swapped: tuple[tuple[str, Any], ...] | None = None


RATIOS = (0.3, 0.1, 0.2, 0.4, 0.5)
#: the first row of each table is what the others are compared with
TABLES: Mapping[str, Mapping[str, Row]] = {
    "icl": {  # CFR-ICL, Table 1
        "nfl": Row(rounds=NFL, seeds=3),
        "icl": Row(seeds=3),
        "suem": Row(rounds=NFL, suem=SuemRecipe(), seeds=3),
        "both": Row(suem=SuemRecipe(), seeds=3),
    },
    "modules": {  # FCFI, Table 3
        "baseline": Row(VariantConfig(feedback="input"), seeds=3),
        "ffc": Row(VariantConfig(fusion="concat"), seeds=3),
        "cffm": Row(VariantConfig(feedback="uncorrected"), seeds=3),
        "both": Row(seeds=3),
    },
    "fusion": {  # FCFI, Table 6
        "none": Row(VariantConfig(feedback="none"), seeds=3),
        "input": Row(VariantConfig(feedback="input"), seeds=3),
        "no_residual": Row(VariantConfig(fusion="no_residual"), seeds=3),
        "no_gate": Row(VariantConfig(fusion="no_gate"), seeds=3),
        "cffm": Row(seeds=3),
    },
    "ratio": {  # FCFI, Table 5
        f"r{ratio}": Row(VariantConfig(ratio=ratio)) for ratio in RATIOS
    },
    "affinity": {  # FCFI, Table 4
        "cosine": Row(),
        "exponential": Row(VariantConfig(affinity="exponential")),
    },
    "ratio_swapped": {
        f"r{ratio}": Row(swapped=(("ratio", ratio),)) for ratio in RATIOS
    },
    "affinity_swapped": {
        "cosine": Row(swapped=()),
        "exponential": Row(swapped=(("affinity", "exponential"),)),
    },
}
