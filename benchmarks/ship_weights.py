"""Put trained weights into the package, with the figures measured on them.

    python benchmarks/ship_weights.py TRAINED [--validation RUN] [--name default]

TRAINED is what ``benchmarks/gpu/train_default.py`` wrote. RUN is the report folder of
``cfrseg evaluate`` on the validation split: its pooled figures join the metadata. The
tensors stay as they are, so the figures remain those of the shipped file.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_cfrseg.model import weights_file as checkpoint

WEIGHTS = Path(__file__).parents[1] / "src" / "napari_cfrseg" / "weights"
LIMIT_MB = 25


def pooled_figures(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return each run's pooled figures by the run's name, nothing of the machine."""
    figures = {}
    for run in summary["runs"]:
        pooled = run["sets"]["pooled"]
        figures[run["name"]] = {
            "objects": pooled["objects"],
            **{f"noc{at}": clicks for at, clicks in pooled["noc"].items()},
            **{f"nof{at}": count for at, count in pooled["nof"].items()},
            **{f"iou{at}": iou for at, iou in pooled["iou_at"].items()},
        }
    return figures


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--name", default="default")
    options = parser.parse_args()
    network, metadata = checkpoint.load(options.trained)
    figures = metadata.validation
    if options.validation:
        summary = json.loads((options.validation / "summary.json").read_text())
        figures = {**figures, **pooled_figures(summary)}
    described = network.architecture()
    metadata = replace(
        metadata, architecture=described, name=options.name, validation=figures
    )
    path = WEIGHTS / f"{options.name}.safetensors"
    checkpoint.save(path, network, metadata)
    size = path.stat().st_size / 1e6
    if size > LIMIT_MB:
        path.unlink()
        raise SystemExit(f"{size:.1f} MB: the wheel takes {LIMIT_MB} MB at most")
    print(f"{path.name}: {size:.1f} MB, {metadata.steps} steps, {figures}")


if __name__ == "__main__":
    main()
