"""Name a segmenter on a command line, and build it in any process.

=====================  ============================================================
``default``, a path    a model of this project, or a weights file
``random-walker``,     the classical peers (:mod:`~napari_cfrseg.evaluation.peers`)
``watershed``,
``grabcut``
``sam:[TYPE:]FILE``    a segment-anything-style predictor with the user's checkpoint
``module:factory``     the object that ``factory()`` returns, with ``set_image`` and
                       ``predict(clicks, previous)``
=====================  ============================================================
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.evaluation import peers
from napari_cfrseg.evaluation.evaluate_objects import AnySegmenter
from napari_cfrseg.io.atomic import file_sha256
from napari_cfrseg.model import weights_file as checkpoint

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Prediction, Segmenter

PEERS: dict[str, Callable[[], AnySegmenter]] = {
    "random-walker": peers.RandomWalker,
    "watershed": peers.MarkerWatershed,
    "grabcut": peers.GrabCut,
}
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class SegmenterError(CfrSegError):
    """The segmenter named does not exist or lacks a method."""


@dataclass(frozen=True, slots=True)
class ProductSegmenter:
    """The product's own segmenter, one refinement for every click: micro protocol."""

    segmenter: Segmenter
    refinement: Refinement

    def set_image(self, image: NDArray[Any]) -> None:
        """Give the whole plane, without any hint of the object."""
        self.segmenter.set_image(image)

    def predict(
        self, clicks: Sequence[Click], previous: Prediction | None
    ) -> Prediction:
        """Compute the newest click's round."""
        how = self.refinement
        return self.segmenter.predict(clicks, previous=previous, refinement=how)


@dataclass(frozen=True, slots=True)
class SegmenterSpec:
    """A segmenter by name; calling it builds the segmenter."""

    segmenter: str = "default"  #: one of the names above
    #: ``"micro"`` or a published protocol; networks of this project only
    protocol: str = "micro"
    #: ``"standard"``, ``"CFR-n"`` or ``"A-CFR-n"``; networks only
    refinement: str = "standard"
    device: str = "auto"  #: ``"auto"``, ``"cpu"``, ``"cuda"``, … networks only
    #: what published protocols' settings depend on
    dataset: str = ""
    backbone: str = "hrnet18s"

    @property
    def is_network(self) -> bool:
        """Whether it is a network of this project."""
        name = self.segmenter
        is_other = name in PEERS or name.startswith("sam:")
        return not is_other and not self._is_factory

    @property
    def _is_factory(self) -> bool:
        exists = Path(self.segmenter).exists()
        return _FACTORY.fullmatch(self.segmenter) is not None and not exists

    @property
    def label(self) -> str:
        """Name in tables."""
        if not self.is_network:
            return self.segmenter
        name = Path(self.segmenter).stem
        protocol = "" if self.protocol == "micro" else f" {self.protocol}"
        return f"{name}{protocol} {self.refinement}"

    def fingerprint(self) -> str:
        """SHA-256 of the weights, so that a resumed run cannot mix two models."""
        if not self.is_network:
            return ""
        return file_sha256(checkpoint.resolve(self.segmenter))

    def __call__(self) -> AnySegmenter:
        """Build it; raise CfrSegError if weights, a package or factory are missing."""
        if self.segmenter in PEERS:
            return PEERS[self.segmenter]()
        if self.segmenter.startswith("sam:"):
            return self._build_sam()
        if self._is_factory:
            return self._build_foreign()
        return self._build_network()

    def check(self) -> None:
        """Raise CfrSegError if a weights file or a factory's module is missing."""
        self.fingerprint()
        if self._is_factory:
            self._find_factory()

    def _find_factory(self) -> Callable[[], Any]:
        module, name = self.segmenter.split(":")
        try:
            factory: Callable[[], Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise SegmenterError(
                f"segmenter {self.segmenter}: {error}; the module must be importable "
                "(PYTHONPATH) and have that function"
            ) from error
        return factory

    def _build_sam(self) -> AnySegmenter:
        _, rest = self.segmenter.split(":", 1)
        kind, separator, path = rest.partition(":")
        if not separator or kind not in peers.MODEL_TYPES:
            kind, path = "", rest
        device = "cpu" if self.device == "auto" else self.device
        model_type = kind or None
        return peers.SamSegmenter.load(Path(path), model_type=model_type, device=device)

    def _build_foreign(self) -> AnySegmenter:
        segmenter = self._find_factory()()
        missing = [m for m in ("set_image", "predict") if not hasattr(segmenter, m)]
        if missing:
            msg = f"{self.segmenter}() returned an object without {missing[0]}()"
            raise SegmenterError(msg)
        return segmenter  # type: ignore[no-any-return]  # it was just checked

    def _build_network(self) -> AnySegmenter:
        from napari_cfrseg.engine.segmenter import Segmenter

        refinement = Refinement.parse(self.refinement)
        segmenter = Segmenter.load(self.segmenter, device=self.device)
        if self.protocol == "micro":
            return ProductSegmenter(segmenter, refinement)
        from napari_cfrseg.evaluation.papers import paper_protocol, published_predictor

        protocol = paper_protocol(
            self.protocol, dataset=self.dataset, backbone=self.backbone
        )
        extra, adaptive = refinement.extra_steps, refinement.kind == "a-cfr"
        protocol = replace(protocol, extra_steps=extra, adaptive=adaptive)
        return published_predictor.PublishedSegmenter(segmenter.network, protocol)
