"""What networks cost on this machine when they were last timed.

``cfrseg bench --all-models`` leaves its figures beside the installed models, and
``cfrseg models list`` shows them. A cache: what cannot be read is as if it were not.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfrseg.atomic import atomic_path

if TYPE_CHECKING:
    from napari_cfrseg.bench.networks import NetworkCost

_FILE = "timings.json"


def _path() -> Path:
    from napari_cfrseg import checkpoint

    return checkpoint.models_folder() / _FILE


def _machine() -> str:
    """Name the machine the figures are of: another may share the folder."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def record(costs: Iterable[NetworkCost]) -> None:
    """Keep a first and a next click's standard milliseconds of each network."""
    known = _read()
    for cost in costs:
        if cost.error:
            continue
        known.setdefault(cost.network, {})[cost.arithmetic] = {
            "first": round(cost.cost("first", "standard").ms, 1),
            "next": round(cost.cost("next", "standard").ms, 1),
            "next step": round(cost.refine_ms, 1),
        }
    with atomic_path(_path()) as partial:
        partial.write_text(json.dumps({"machine": _machine(), "ms": known}, indent=1))


def recorded() -> dict[str, dict[str, dict[str, float]]]:
    """Return milliseconds by network, arithmetic and kind; empty where never timed."""
    return _read()


def _read() -> dict[str, Any]:
    try:
        kept = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("machine") != _machine():
        return {}
    known = kept.get("ms")
    return known if isinstance(known, dict) else {}
