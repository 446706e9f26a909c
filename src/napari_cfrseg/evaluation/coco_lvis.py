"""COCO+LVIS as distributed with RITM: pickled, layered instance masks.

Layout of a split (``train`` or ``val``)::

    SPLIT/hannotation.pickle    {image id: {"hierarchy": {index: …},
                                            "num_instance_masks": n}}
    SPLIT/images/ID.jpg         (FCFI: SPLIT2017/ID.jpg)
    SPLIT/masks/ID.pickle       ([PNG-encoded layer, …], [(layer, mask id), …])

Instance i < n is layer ``mapping[i][0]``'s pixels of value ``mapping[i][1]``; entries
from n on are stuff and not asked for. Pickles are read by an unpickler that knows
containers, numbers, strings and NumPy arrays and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.folders import read_image
from napari_cfrseg.evaluation.objects import AnnotatedPlane, BenchmarkObject

#: everything a pickled list of NumPy arrays needs, old and new NumPy
_KNOWN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


@dataclass(frozen=True, slots=True)
class CocoLvis:
    """COCO+LVIS with layered masks.

    Attributes
    ----------
    folder
        Holds the splits.
    split
        ``"train"`` or ``"val"``.
    name
        What the set is called in tables.
    """

    folder: Path
    split: str = "val"
    name: str = "COCO+LVIS"

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every instance (no stuff), image by image; all masks are opened."""
        path = self.folder / self.split / "hannotation.pickle"
        annotation = _read_pickle(path)
        if not isinstance(annotation, dict):
            msg = f"{path} holds a {type(annotation).__name__}, expected a dict"
            raise DatasetError(msg)
        for image_id, sample in sorted(annotation.items()):
            _, mapping = self._layers(str(image_id))
            count = _instance_count(sample, path)
            for layer, label in mapping[:count]:
                yield BenchmarkObject(
                    self, self.name, str(image_id), None, int(label), int(layer)
                )

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read an image and its layers."""
        del plane
        folder = self.folder / self.split / "images"
        if not folder.is_dir():
            folder = self.folder / f"{self.split}2017"
        image = read_image(folder / f"{image_name}.jpg")
        layers, _ = self._layers(image_name)
        labels = np.stack(layers)
        if labels.shape[1:] != image.shape[:2]:
            msg = (
                f"{self.name}: masks of {image_name} have size {labels.shape[1:]}, "
                f"its image {image.shape[:2]}"
            )
            raise DatasetError(msg)
        return AnnotatedPlane(image, labels)

    def _layers(
        self, image_name: str
    ) -> tuple[list[NDArray[Any]], list[tuple[int, int]]]:
        path = self.folder / self.split / "masks" / f"{image_name}.pickle"
        content = _read_pickle(path)
        try:
            encoded, mapping = content
            layers = [_decode_png(layer) for layer in encoded]
            items = mapping.values() if isinstance(mapping, dict) else mapping
            return layers, [(int(layer), int(label)) for layer, label in items]
        except (TypeError, ValueError, OSError) as error:
            msg = f"{path} is not ([PNG layer, …], [(layer, mask id), …]): {error!r}"
            raise DatasetError(msg) from error


def _instance_count(sample: Any, path: Path) -> int:
    try:
        return int(sample["num_instance_masks"])
    except (TypeError, KeyError) as error:
        msg = f"{path}: a sample without num_instance_masks: {sample!r}"
        raise DatasetError(msg) from error


def _decode_png(encoded: Any) -> NDArray[Any]:
    from PIL import Image

    data = np.asarray(encoded, np.uint8).tobytes()
    with Image.open(io.BytesIO(data)) as file:
        return np.asarray(file)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers and arrays; any other class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            msg = f"{module}.{name} has no place in a file of masks"
            raise pickle.UnpicklingError(msg)
        return super().find_class(module, name)


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file).load()
    except FileNotFoundError as error:
        msg = (
            f"no file {path}: expected SPLIT/hannotation.pickle and "
            "SPLIT/masks/ID.pickle"
        )
        raise DatasetError(msg) from error
    except (OSError, pickle.UnpicklingError, EOFError, ImportError) as error:
        msg = f"{path} is not a file of masks: {error}"
        raise DatasetError(msg) from error
