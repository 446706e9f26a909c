"""``cfrseg-train --dry-run``: what would be trained on, and how long it takes."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cfrseg_training.atlas import Atlas
from cfrseg_training.config import Settings
from cfrseg_training.gate import bundled_objects, judge, judged_objects, split_data
from cfrseg_training.labelled import LabelledData
from cfrseg_training.loop import Trainer
from cfrseg_training.sheet import write_sheet
from napari_cfrseg import checkpoint


def dry_run_text(
    settings: Settings, data: LabelledData, output: Path, *, as_json: bool
) -> str:
    """Draw the contact sheet and measure how long a step and a judgement take."""
    split = split_data(data, settings.seed)
    folds = len(split.folds)
    objects = [
        item
        for fold in split.folds
        for item in judged_objects(fold, folds, settings.seed)
    ]
    source = checkpoint.resolve(settings.base)
    started = time.monotonic()
    judge(source, objects[:3], settings.threads)
    per_object = (time.monotonic() - started) / len(objects[:3])
    network, _ = checkpoint.load(source)
    atlas = Atlas([plane.sample() for plane in split.folds[0].trained])
    config = replace(settings.train_config(), steps=3, keep_best=False)
    sheet = output.with_suffix(".sheet.png")
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(network, atlas, config, Path(scratch) / "state.pt")
        write_sheet(trainer, sheet)
        started = time.monotonic()
        trainer.run()
        per_step = (time.monotonic() - started) / 3
    count = 2 * (len(objects) + (len(bundled_objects()) if settings.forgetting else 0))
    found: dict[str, Any] = {
        "images": len(data.names),
        "objects_trained_on": len(atlas),
        "objects_judged": len(objects),
        "how": split.how,
        "steps": round(60 * settings.minutes / per_step),
        "training_s": round(60 * settings.minutes),
        "judging_s": round(per_object * count),
        "sheet": str(sheet),
        "left_out": data.broken,
    }
    if as_json:
        return json.dumps(found)
    return (
        f"would train on {found['objects_trained_on']} objects and judge on "
        f"{found['objects_judged']} ({split.how})\n"
        f"{settings.minutes:g} minutes of training (about {found['steps']} steps of "
        f"{config.batch} windows), about {found['judging_s'] / 60:.1f} of judging\n"
        f"samples with their clicks: {sheet}"
    )
