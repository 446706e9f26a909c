"""napari started by anyone: torch's threads wait without spinning."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_LOAD = """
from napari_cfrseg.gui.segment.model_loading import wait_passively
wait_passively()
import os
print(os.environ.get("OMP_WAIT_POLICY"))
"""
_TORCH = "import torch; torch.ones(300_000).add_(1)"
_LATE = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')"


def policy(code: str, **variables: str) -> tuple[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp is Linux's")
def test_openmp_waits_passively_when_the_dock_loads_torch() -> None:
    chosen, told = policy(_LOAD + _TORCH, OMP_DISPLAY_ENV="true")
    assert chosen == "PASSIVE"
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told


def test_a_choice_that_was_made_stays() -> None:
    assert policy(_LOAD, OMP_WAIT_POLICY="ACTIVE")[0] == "ACTIVE"


def test_after_torch_is_loaded_nothing_is_changed() -> None:
    assert policy(_LATE + _LOAD)[0] == "None"
