"""The natural-image benchmarks of both papers, each in its published layout.

==============  ====================================================================
GrabCut         ``data_GT/*``, ``boundary_GT/*``: 128 ignored, > 128 object
Berkeley        ``images/*``, ``masks/*``: as GrabCut (FCFI: ``images-f-BRS/test``,
                ``masks-f-BRS/test``)
DAVIS-345       ``img/*``, ``gt/*``: any channel > 0 is the object
COCO-MVal       as DAVIS
SBD             ``img/*.jpg``, ``inst/*.mat`` (GTinst.Segmentation), ``val.txt``;
                every instance of every image listed
Pascal VOC      ``JPEGImages/*.jpg``, ``SegmentationObject/*.png`` (palette: instance
                ids, 255 ignored), ``ImageSets/Segmentation/val.txt``
==============  ====================================================================

One object per mask in the first four; an image without a mask of its stem is an error.
Nothing is written into the folders.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import AnnotatedPlane, BenchmarkObject
from napari_cfrseg.evaluation.datasets.label_folders import find_file
from napari_cfrseg.io.images import IMAGE_SUFFIXES, read_image, read_labels

#: grey value of ignored pixels in GrabCut's and Berkeley's masks
GRABCUT_IGNORE = 128
VOC_IGNORE = 255


@dataclass(frozen=True, slots=True)
class MaskFolder:
    """One mask per image, paired by file stem."""

    name: str  #: what the set is called in tables
    #: the two folders
    images: Path
    masks: Path
    #: ``"grabcut"``: 128 ignored, above it object. ``"any"``: any channel > 0.
    coding: Literal["grabcut", "any"]

    def objects(self) -> Iterator[BenchmarkObject]:
        """List one object per image; DatasetError if a folder is missing or empty."""
        for folder in (self.images, self.masks):
            if not folder.is_dir():
                raise DatasetError(
                    f"{self.name}: no folder {folder}; expected images in "
                    f"{self.images} and masks of the same stems in {self.masks}"
                )
        files = [p for p in self.images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
        stems = sorted({path.stem for path in files})
        if not stems:
            msg = f"{self.name}: {self.images} holds no {', '.join(IMAGE_SUFFIXES)}"
            raise DatasetError(msg)
        for stem in stems:
            yield BenchmarkObject(self, self.name, stem, None, label=1)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read an image and its mask."""
        del plane
        image = read_image(find_file(self.images, image_name, IMAGE_SUFFIXES))
        path = find_file(self.masks, image_name, IMAGE_SUFFIXES)
        mask = read_image(path)
        _check_sizes(image, mask, path)
        if self.coding == "any":
            grey = mask if mask.ndim == 2 else mask[..., :3].max(axis=-1)
            return AnnotatedPlane(image, (grey > 0).astype(np.uint8)[None])
        grey = mask if mask.ndim == 2 else mask[..., 0]
        truth = grey > GRABCUT_IGNORE
        ignore_mask = grey == GRABCUT_IGNORE
        return AnnotatedPlane(
            image,
            truth[None].astype(np.uint8),
            ignore_mask if ignore_mask.any() else None,
        )


def grabcut(folder: Path) -> MaskFolder:
    """GrabCut: 50 images."""
    return MaskFolder("GrabCut", folder / "data_GT", folder / "boundary_GT", "grabcut")


def berkeley(folder: Path) -> MaskFolder:
    """Berkeley: 96 images, 100 instances, one item per file in ``images``."""
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() and (folder / "images-f-BRS" / "test").is_dir():
        images = folder / "images-f-BRS" / "test"
        masks = folder / "masks-f-BRS" / "test"
    return MaskFolder("Berkeley", images, masks, "grabcut")


def davis(folder: Path) -> MaskFolder:
    """DAVIS-345: 345 frames."""
    return MaskFolder("DAVIS", folder / "img", folder / "gt", "any")


def coco_mval(folder: Path) -> MaskFolder:
    """COCO-MVal: 800 images."""
    return MaskFolder("COCO-MVal", folder / "img", folder / "gt", "any")


@dataclass(frozen=True, slots=True)
class Sbd:
    """Semantic Boundaries Dataset: the 6671 instances of the images in ``val.txt``."""

    folder: Path  #: with ``img/``, ``inst/`` and the list
    name: str = "SBD"  #: what the set is called in tables

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every instance; all ``inst`` files are read for it."""
        for stem in _read_list(self.name, self.folder / "val.txt"):
            for label in _labels_in(self._instances(stem)):
                yield BenchmarkObject(self, self.name, stem, None, label)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read an image and its instances."""
        del plane
        image = read_image(self.folder / "img" / f"{image_name}.jpg")
        instances = self._instances(image_name)
        _check_sizes(image, instances, self.folder / "inst" / f"{image_name}.mat")
        return AnnotatedPlane(image, instances[None])

    def _instances(self, stem: str) -> NDArray[np.int32]:
        path = self.folder / "inst" / f"{stem}.mat"
        try:
            instances = loadmat(path)["GTinst"]["Segmentation"][0, 0]
        except (OSError, ValueError, KeyError, IndexError) as error:
            msg = f"{path} holds no GTinst.Segmentation: {error!r}"
            raise DatasetError(msg) from error
        return np.asarray(instances, np.int32)


@dataclass(frozen=True, slots=True)
class PascalVoc:
    """Pascal VOC segmentation: the 3427 instances of the images in ``val.txt``."""

    folder: Path  #: with ``JPEGImages``, ``SegmentationObject`` and ``ImageSets``
    name: str = "PascalVOC"  #: what the set is called in tables

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every instance; all mask files are read for it."""
        lists = self.folder / "ImageSets" / "Segmentation"
        for stem in _read_list(self.name, lists / "val.txt"):
            for label in _labels_in(self._instances(stem)):
                if label != VOC_IGNORE:
                    yield BenchmarkObject(self, self.name, stem, None, label)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read an image, its instances and its ignored outlines."""
        del plane
        image = read_image(self.folder / "JPEGImages" / f"{image_name}.jpg")
        instances = self._instances(image_name)
        _check_sizes(image, instances, self._path(image_name))
        return AnnotatedPlane(image, instances[None], instances == VOC_IGNORE)

    def _path(self, stem: str) -> Path:
        return self.folder / "SegmentationObject" / f"{stem}.png"

    def _instances(self, stem: str) -> NDArray[Any]:
        return read_labels(self._path(stem))


def _labels_in(instances: NDArray[Any]) -> list[int]:
    return [int(v) for v in np.unique(instances) if v > 0]


def _read_list(name: str, path: Path) -> list[str]:
    try:
        stems = path.read_text().split()
    except OSError as error:
        msg = f"{name}: no list {path}; it names one image per line"
        raise DatasetError(msg) from error
    if not stems:
        raise DatasetError(f"{name}: {path} is empty; it names one image per line")
    return stems


def _check_sizes(image: NDArray[Any], mask: NDArray[Any], path: Path) -> None:
    if image.shape[:2] != mask.shape[:2]:
        msg = f"{path} has size {mask.shape[:2]}, its image {image.shape[:2]}"
        raise DatasetError(msg)


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
    """The validation images of COCO+LVIS, with layered masks."""

    folder: Path  #: holds the splits
    name: str = "COCO+LVIS"  #: what the set is called in tables

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every instance (no stuff), image by image; all masks are opened."""
        path = self.folder / "val" / "hannotation.pickle"
        annotation = _read_pickle(path)
        try:
            samples = sorted(annotation.items())
            counts = {str(i): int(one["num_instance_masks"]) for i, one in samples}
        except (AttributeError, TypeError, KeyError) as error:
            msg = f"{path} is not {{image: num_instance_masks, …}}: {error!r}"
            raise DatasetError(msg) from error
        for image_id, count in counts.items():
            _, mapping = self._layers(image_id)
            for layer, label in mapping[:count]:
                yield BenchmarkObject(self, self.name, image_id, None, label, layer)

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read an image and its layers."""
        del plane
        folder = self.folder / "val" / "images"
        if not folder.is_dir():
            folder = self.folder / "val2017"
        image = read_image(folder / f"{image_name}.jpg")
        layers, _ = self._layers(image_name)
        labels = np.stack(layers)
        _check_sizes(image, labels[0], self._masks(image_name))
        return AnnotatedPlane(image, labels)

    def _masks(self, image_name: str) -> Path:
        return self.folder / "val" / "masks" / f"{image_name}.pickle"

    def _layers(
        self, image_name: str
    ) -> tuple[list[NDArray[Any]], list[tuple[int, int]]]:
        path = self._masks(image_name)
        content = _read_pickle(path)
        try:
            encoded, mapping = content
            layers = [_decode_png(layer) for layer in encoded]
            items = mapping.values() if isinstance(mapping, dict) else mapping
            return layers, [(int(layer), int(label)) for layer, label in items]
        except (TypeError, ValueError, OSError) as error:
            msg = f"{path} is not ([PNG layer, …], [(layer, mask id), …]): {error!r}"
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
        raise DatasetError(
            f"no file {path}: expected SPLIT/hannotation.pickle and "
            "SPLIT/masks/ID.pickle"
        ) from error
    except (OSError, pickle.UnpicklingError, EOFError, ImportError) as error:
        raise DatasetError(f"{path} is not a file of masks: {error}") from error
