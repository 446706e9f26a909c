"""``cfrseg train --dry-run``: the data, the time it takes, and a contact sheet."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cfrseg_training.configuration import Settings
from cfrseg_training.finetune.gate import bundled_objects, judge
from cfrseg_training.finetune.held_out import judged_objects, split_data
from cfrseg_training.loop.atlas import Atlas, WindowBatch
from cfrseg_training.loop.click_sampling import ClickSlots, initial_clicks
from cfrseg_training.loop.labelled import LabelledData
from cfrseg_training.loop.trainer import Trainer
from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.overlay import SKY_BLUE, VERMILION, YELLOW


def dry_run_text(settings: Settings, data: LabelledData, *, as_json: bool) -> str:
    """Draw the contact sheet and measure how long a step and a judgement take."""
    split = split_data(data, settings.seed)
    folds = len(split.folds)
    judged = (judged_objects(fold, folds, settings.seed) for fold in split.folds)
    objects = [item for items in judged for item in items]
    source = checkpoint.resolve(settings.base)
    started = time.monotonic()
    judge(source, objects[:3], settings.threads)
    per_object = (time.monotonic() - started) / len(objects[:3])
    network, _ = checkpoint.load(source)
    atlas = Atlas([plane.sample() for plane in split.folds[0].trained])
    config = replace(settings.train_config(), steps=3, keep_best=False)
    sheet = (settings.output or Path("samples")).with_suffix(".sheet.png")
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(network, atlas, config, Path(scratch) / "state.pt")
        write_sheet(trainer, sheet)
        started = time.monotonic()
        trainer.run()
        per_step = (time.monotonic() - started) / 3
    count = 2 * (len(objects) + (len(bundled_objects()) if settings.forgetting else 0))
    facts: dict[str, Any] = {
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
        return json.dumps(facts)
    return (
        f"would train on {facts['objects_trained_on']} objects and judge on "
        f"{facts['objects_judged']} ({split.how})\n"
        f"{settings.minutes:g} minutes of training (about {facts['steps']} steps of "
        f"{config.batch} windows), about {facts['judging_s'] / 60:.1f} of judging\n"
        f"samples with their clicks: {sheet}"
    )


#: windows on the sheet, the side of one, and the gap between two
COLUMNS, ROWS = 6, 4
TILE_PX, GAP_PX = 176, 6
OUTLINE, POSITIVE, NEGATIVE = YELLOW, SKY_BLUE, VERMILION


def write_sheet(trainer: Trainer, path: Path) -> None:
    """Draw samples as the training sees them into a PNG file.

    The object is outlined in yellow; positive clicks are blue rings, negative ones
    orange crosses; hatched pixels do not count. The trainer's generator is restored.
    """
    state = trainer.generator.get_state()
    trainer.generator.manual_seed(trainer.config.seed)
    batch = trainer.draw(ROWS * COLUMNS, trainer.network.grid_size)
    clicks = initial_clicks(batch, trainer.generator)
    trainer.generator.set_state(state)
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (COLUMNS * step + GAP_PX, ROWS * step + GAP_PX), "white")
    image, mask, valid = (t.cpu() for t in (batch.image, batch.mask, batch.valid))
    on_host = replace(batch, image=image, mask=mask, valid=valid)
    for index in range(ROWS * COLUMNS):
        row, column = divmod(index, COLUMNS)
        tile = _tile(on_host, clicks, index)
        sheet.paste(tile, (GAP_PX + column * step, GAP_PX + row * step))
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _tile(batch: WindowBatch, clicks: ClickSlots, index: int) -> Image.Image:
    pixels = (batch.image[index].permute(1, 2, 0) * 255).round().to(torch.uint8)
    tile = Image.fromarray(pixels.numpy()).resize((TILE_PX, TILE_PX))
    shown = np.asarray(tile).copy()
    known = _enlarged(batch.valid[index, 0])
    rows, columns = np.indices(known.shape)
    shown[~known & ((rows + columns) % 8 < 2)] = 128
    inside = _enlarged(batch.mask[index, 0] > 0.5)
    shown[inside & ~ndimage.binary_erosion(inside, iterations=2)] = OUTLINE
    tile = Image.fromarray(shown)
    draw = ImageDraw.Draw(tile)
    scale = TILE_PX / batch.mask.shape[-1]
    for slot, (y, x, order) in enumerate(clicks.points[index].cpu().tolist()):
        if order < 0:
            continue
        v, u = (y + 0.5) * scale, (x + 0.5) * scale
        if slot < clicks.slots:
            draw.ellipse((u - 5, v - 5, u + 5, v + 5), outline="black", width=4)
            draw.ellipse((u - 4, v - 4, u + 4, v + 4), outline=POSITIVE, width=2)
            continue
        for colour, width in (("black", 4), (NEGATIVE, 2)):
            draw.line((u - 4, v - 4, u + 4, v + 4), fill=colour, width=width)
            draw.line((u - 4, v + 4, u + 4, v - 4), fill=colour, width=width)
    return tile


def _enlarged(mask: torch.Tensor) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
    return np.asarray(picture.resize((TILE_PX, TILE_PX), Image.Resampling.NEAREST)) > 0
