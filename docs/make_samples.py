"""Cut the bundled sample micrographs out of the full data sets.

Usage: ``python docs/make_samples.py DATA_FOLDER``, where DATA_FOLDER holds
``<set>/images/NAME.tif`` and ``<set>/labels/NAME.tif``. None of the images belongs to
the test side of ``benchmarks/split.json``; the script refuses one that does.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tifffile
from skimage.segmentation import relabel_sequential

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "napari_cfrseg" / "sample_data"
#: sample name -> set, image name, rows, columns
CROPS: dict[str, tuple[str, str, slice, slice]] = {
    "glioblastoma_phase": ("t98g_phase", "set22", slice(390, 902), slice(200, 712)),
    "powder_sem": (
        "powder_sem",
        "Sc1Tile_001-001-000_y0x768",
        slice(180, 692),
        slice(60, 572),
    ),
    "superalloy_sem": (
        "superalloy_sem",
        "me3_15kx_3kv_2",
        slice(0, 512),
        slice(0, 512),
    ),
    "axon_sem": (
        "axon_sem",
        "sub-rat8_sample-V915_y0x770",
        slice(36, 548),
        slice(0, 512),
    ),
    "ganglioneuroblastoma_fluo": (
        "ganglioneuroblastoma_fluo",
        "Ganglioneuroblastoma_0_x0",
        slice(180, 692),
        slice(60, 572),
    ),
    "breast_cancer_he": ("tnbc_he_nuclei", "05_1", slice(40, 424), slice(100, 484)),
}


def main(data: Path) -> None:
    """Write the samples and their sources' licences."""
    split = json.loads((ROOT / "benchmarks" / "split.json").read_text("utf-8"))["sets"]
    (TARGET / "licences").mkdir(parents=True, exist_ok=True)
    for name, (set_name, image_name, rows, columns) in CROPS.items():
        if image_name in split[set_name]["test"]:
            sys.exit(f"{set_name}/{image_name} is on the test side of the split")
        folder = data / set_name
        image = tifffile.imread(folder / "images" / f"{image_name}.tif")
        labels = tifffile.imread(folder / "labels" / f"{image_name}.tif")
        labels, _, _ = relabel_sequential(labels[rows, columns])
        for kind, array in (
            ("image", image[rows, columns]),
            ("labels", labels.astype(np.uint16)),
        ):
            tifffile.imwrite(
                TARGET / f"{name}.{kind}.tif",
                np.ascontiguousarray(array),
                compression="zlib",
                compressionargs={"level": 9},
                predictor=True,
                photometric="rgb" if array.ndim == 3 else "minisblack",
            )
        licence = folder / "LICENSE_SOURCE.txt"
        if licence.exists():
            shutil.copyfile(licence, TARGET / "licences" / f"{name}.txt")
        print(name, image[rows, columns].shape, int(labels.max()), "objects")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
