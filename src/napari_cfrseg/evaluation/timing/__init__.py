"""What a click costs: by stage on micrographs, and on every network side by side."""

from napari_cfrseg.evaluation.timing.micrograph_times import (
    REFINEMENTS,
    SIDES,
    STAGES,
    BenchRow,
    run_bench,
    tiled,
    trials,
)

__all__ = [
    "REFINEMENTS",
    "SIDES",
    "STAGES",
    "BenchRow",
    "run_bench",
    "tiled",
    "trials",
]
