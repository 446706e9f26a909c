"""The in-process evaluator runs on a machine with little installed."""

import subprocess
import sys

import pytest

HEAVY = ("pydantic", "pooch", "dask", "distributed", "rich", "typer", "matplotlib")


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (
            ("evaluate_objects", "report.tables", "datasets.choice", "runner", "peers"),
            (*HEAVY, "torch", "cv2"),
        ),
        (
            ("papers.published_predictor", "papers", "report.comparisons"),
            (*HEAVY, "cv2"),
        ),
    ],
)
def test_importing_the_evaluator_imports_nothing_it_does_not_use(modules, forbidden):
    names = ", ".join(f"napari_cfrseg.evaluation.{name}" for name in modules)
    code = f"import sys, {names}; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(forbidden) & set(output)
