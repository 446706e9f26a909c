"""Former module paths: importable for one release, with a DeprecationWarning.

A script written for version 0.1.0 goes on: ``napari_cfrseg.session.imports`` is found
here, warns once with the new path, and hands out the names that are now in
``napari_cfrseg.session.imported_events``. These are the modules that its documentation
named, and those that a script may have used besides.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

#: a former module: where its names are now; ``napari_cfrseg.`` is left out of both
_MOVED = """
cfrseg_training.config: cfrseg_training.configuration
cfrseg_training.data: cfrseg_training.loop.labelled
cfrseg_training.recipe: cfrseg_training.papers.recipe
checkpoint: model.weights_file
engine.annotator: annotation.annotator
engine.cascade: engine.refinement
engine.events: annotation.event_fields annotation.events
engine.history: annotation.state
engine.masks: geometry.masks
engine.objects: annotation.state
engine.patch: engine.probability_patch
engine.propagation: propagation
engine.propagation.stack: propagation.planes
engine.propagation.sweep: propagation.sweep
engine.propagation.values: propagation.tracks
engine.support: engine.focus
engine.window_score: engine.focus
evaluation.compare: evaluation.report.comparisons evaluation.scores
evaluation.loop: evaluation.evaluate_objects
evaluation.micrographs: evaluation.datasets.choice evaluation.scores
evaluation.objects: evaluation.datasets
evaluation.published: evaluation.papers.published_predictor
evaluation.robot: evaluation.robots
evaluation.rows: evaluation.scores
evaluation.tables: evaluation.report.tables
export.formats: io.click_tables io.object_exports
export.labels: io.label_exports
fetch: model.published.fetch
images: io.plane_image
model.catalogue: model.registry
model.default: model.cfrnet
propagation.settings: propagation.tracks
session.annotate: session.recording
session.batch: session.replay_many
session.exports: session.session_exports
session.fingerprint: io.images
session.image_files: io.axes io.images
session.imports: session.imported_events
session.models: model.weights_file session.references
session.pixels: io.axes session.references
session.reading: annotation.event_fields session.session_file
session.replaying: session.replay_session
session.summary: session.session
session.values: session.format
session.writer: session.session_writer
session.writing: annotation.events session.session_file
weights_import.published: model.published.import_checkpoint
window: geometry.windows
"""
#: names that changed, by former module and name
RENAMED = {
    ("napari_cfrseg.session.summary", "summarise"): "objects_after",
    ("napari_cfrseg.export.formats", "ObjectRow"): "ExportedObject",
    ("napari_cfrseg.evaluation.rows", "ObjectRow"): "ResultRow",
}


def _whole(name: str) -> str:
    return name if name.startswith("cfrseg_training.") else f"napari_cfrseg.{name}"


#: the modules in which each former module's names are now
NEW_PLACES: dict[str, tuple[str, ...]] = {
    _whole(former): tuple(map(_whole, places.split()))
    for former, _, places in (line.partition(":") for line in _MOVED.split("\n")[1:-1])
}


class FormerPaths(MetaPathFinder, Loader):
    """Imports former modules; asked last, where no module of this name exists."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return how a former module or package is imported, None for all others."""
        inside = any(name.startswith(f"{fullname}.") for name in NEW_PLACES)
        if not inside and fullname not in NEW_PLACES:
            return None
        return spec_from_loader(fullname, self, is_package=inside)

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let the module hand out names from their new places."""
        former = module.__name__
        places = NEW_PLACES.get(former, ())

        def look(name: str) -> Any:
            wanted = RENAMED.get((former, name), name)
            for place in () if name.startswith("__") else places:
                found = import_module(place)
                if hasattr(found, wanted):
                    return getattr(found, wanted)
            raise AttributeError(f"module {former!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = look
        if places:
            msg = f"{former} is now {' and '.join(places)}; this path ends with 0.3"
            warnings.warn(msg, DeprecationWarning, stacklevel=2)


def install() -> None:
    """Find former modules from now on."""
    if not any(isinstance(finder, FormerPaths) for finder in sys.meta_path):
        sys.meta_path.append(FormerPaths())
