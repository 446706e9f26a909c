"""Files with a few bytes changed, cut or repeated: one line of error, or an image."""

from __future__ import annotations

import logging
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from input_kinds import KINDS

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.io.click_tables import read_clicks
from napari_cfrseg.io.images import open_image

READERS = ("tif", "zarr", "npy", "png", "jpg", "bmp", "csv")
#: of the default run, and of the slow one
FEW, MANY = 200, 5000
MOST_S = 10.0
TABLES = (
    "y,x,object,sign\n1.5,2.5,1,+\n3,4,01,-\n",
    "index;axis-0;axis-1;axis-2\n0;1,5;2,5;3\n1;2;3;4\n",
    "y\tx\tname\n1\t2\tzelle\n",
)


def seeds(reader: str, folder: Path) -> list[Path]:
    if reader == "csv":
        made = []
        for number, text in enumerate(TABLES):
            path = folder / f"{number}.csv"
            path.write_text(text, "utf-16" if number == 2 else "utf-8")
            made.append(path)
        return made
    ending = "jpeg" if reader == "jpg" else reader
    kinds = [k for k in KINDS if k.name.lower().endswith((ending, reader))]
    return [kind.make(folder) for kind in kinds]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, mostly near the start where the structure is."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        reach = len(data) if rng.random() < 0.4 else min(len(data), 400)
        at = rng.randrange(reach)
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"))
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        else:
            del data[at:]
    return bytes(data)


def mutants(reader: str, folder: Path, count: int) -> Iterator[Path]:
    rng = random.Random(f"{reader} {count}")
    originals = seeds(reader, folder / "seeds")
    for number in range(count):
        original = rng.choice(originals)
        target = folder / f"mutant{original.suffix}"
        if original.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(original, target)
            inside = sorted(p for p in target.rglob("*") if p.is_file())
            metadata = [p for p in inside if p.name.startswith((".z", "zarr"))]
            victim = rng.choice(metadata if number % 3 else inside)
            victim.write_bytes(mutated(victim.read_bytes(), rng))
        else:
            target.write_bytes(mutated(original.read_bytes(), rng))
        yield target


def read_pixels(path: Path) -> None:
    opened = open_image(path)
    arranged = opened.arranged()
    if np.prod(arranged.shape) < 1 << 24:
        arranged.read()
    else:
        depth = len(arranged.axes) - 2 - arranged.has_channels
        np.asarray(arranged.array[(*(0,) * depth, slice(0, 64), slice(0, 64))])


def check(reader: str, folder: Path, count: int) -> None:
    read: Callable[[Path], object] = read_clicks if reader == "csv" else read_pixels
    (folder / "seeds").mkdir()
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    refused = 0
    for number, path in enumerate(mutants(reader, folder, count)):
        start = time.process_time()
        reason = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except CfrSegError as error:
            reason = str(error)
            refused += 1
        assert "\n" not in reason, number
        assert "allow_pickle" not in reason, number
        assert time.process_time() - start < MOST_S, number
    assert refused > 0


@pytest.mark.parametrize("reader", READERS)
def test_a_few_mutated_files(tmp_path, reader):
    check(reader, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("reader", READERS)
def test_thousands_of_mutated_files(tmp_path, reader):
    check(reader, tmp_path, MANY)
