"""Compare the labels of two models: object by object, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.io.atomic import atomic_path
from napari_cfrseg.overlay import draw_overlay

#: a picture of a plane is shown at most so large
TILE_PX = 320
#: sessions on one contact sheet
MOST_TILES = 24
_COLUMNS = 2


def compare_labels(
    before: NDArray[np.integer], after: NDArray[np.integer]
) -> list[dict[str, Any]]:
    """Return the objects that changed: id, pixels before and after, IoU.

    Parameters
    ----------
    before, after
        Labels of one shape.

    Returns
    -------
    By ascending IoU; an object that is the same is left out.
    """
    same = np.bincount(before[(before == after) & (before > 0)].ravel())
    first = np.bincount(before[before > 0].ravel())
    second = np.bincount(after[after > 0].ravel())
    size = max(len(same), len(first), len(second), 1)
    same, first, second = (np.pad(a, (0, size - len(a))) for a in (same, first, second))
    changed = []
    for label in np.flatnonzero(first + second):
        joint = int(first[label] + second[label] - same[label])
        if same[label] != joint:
            changed.append(
                {
                    "object": int(label),
                    "before_px": int(first[label]),
                    "after_px": int(second[label]),
                    "iou": round(int(same[label]) / joint, 4),
                }
            )
    return sorted(changed, key=lambda c: (c["iou"], c["object"]))


def write_comparison(
    path: Path,
    image: Any,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
) -> None:
    """Write before and after side by side, on the plane that changed most."""
    from PIL import Image

    differing = (before != after).reshape(-1, *before.shape[-2:]).sum(axis=(1, 2))
    plane = np.unravel_index(int(differing.argmax()), before.shape[:-2] or (1,))
    index = tuple(int(i) for i in plane) if before.ndim > 2 else ()
    pixels = np.asarray(image[index] if index else image[:])
    pixels = pixels[..., :3] if pixels.ndim == 3 else pixels
    sides = [draw_overlay(pixels, labels[index]) for labels in (before, after)]
    gap = np.full((sides[0].shape[0], 8, 3), 255, np.uint8)
    picture = Image.fromarray(np.concatenate([sides[0], gap, sides[1]], axis=1))
    picture.thumbnail((2 * TILE_PX, TILE_PX))
    with atomic_path(path) as temporary:
        picture.save(temporary)


def write_contact_sheet(path: Path, pictures: Sequence[Path]) -> None:
    """Write comparisons below each other, each with its session's name."""
    from PIL import Image, ImageDraw

    tiles = [p for p in pictures if p.is_file()][:MOST_TILES]
    if not tiles:
        return
    rows = -(-len(tiles) // _COLUMNS)
    width, height = 2 * TILE_PX + 16, TILE_PX + 24
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        x, y = number % _COLUMNS * width, number // _COLUMNS * height
        name = tile.name.removesuffix(".compare.png")
        draw.text(
            (x + 4, y + 4), name.encode("ascii", "replace").decode(), fill="black"
        )
        with Image.open(tile) as picture:
            sheet.paste(picture, (x, y + 20))
    with atomic_path(path) as temporary:
        sheet.save(temporary)
