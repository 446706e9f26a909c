"""Former module paths: importable for one release, with a DeprecationWarning.

A script written for version 0.1.0 goes on: ``napari_cfrseg.session.imports`` is found
here, warns once with the new path, and hands out the names that are now in
``napari_cfrseg.session.imported_events``. Names that exist no more are missing there,
too (CHANGELOG.md lists them).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

#: a module that is there: the former ones whose names it has now, without
#: ``napari_cfrseg.`` in front
_MOVED = """
annotation.annotator: engine.annotator
annotation.event_fields: engine.events session.event_parts session.fields
  session.reading session.writing
annotation.events: engine.events session.writing
annotation.handlers: engine.acts
annotation.propagated_planes: engine.propagating
annotation.rounds: engine.rounds
annotation.state: engine.history engine.objects
annotation.transaction: engine.act engine.ownership
cfrseg_training.command: cfrseg_training.cli
cfrseg_training.configuration: cfrseg_training.config
cfrseg_training.finetune.dry_run: cfrseg_training.dry_run cfrseg_training.sheet
cfrseg_training.finetune.gate: cfrseg_training.fit cfrseg_training.gate
  cfrseg_training.outcome
cfrseg_training.finetune.held_out: cfrseg_training.curve cfrseg_training.gate
cfrseg_training.finetune.tuning: cfrseg_training.report
cfrseg_training.loop.atlas: cfrseg_training.atlas cfrseg_training.atlas_objects
cfrseg_training.loop.augmentation: cfrseg_training.photometry cfrseg_training.suem
cfrseg_training.loop.click_sampling: cfrseg_training.click_sampling
  cfrseg_training.real_clicks
cfrseg_training.loop.labelled: cfrseg_training.data cfrseg_training.labelled
  cfrseg_training.packed
cfrseg_training.loop.run_state: cfrseg_training.norms cfrseg_training.state
cfrseg_training.loop.training_step: cfrseg_training.losses cfrseg_training.rounds
cfrseg_training.papers.published_steps: cfrseg_training.published
  cfrseg_training.published_clicks
cfrseg_training.papers.recipe: cfrseg_training.from_recipe cfrseg_training.recipe
cfrseg_training.papers.recipe_training: cfrseg_training.from_recipe
  cfrseg_training.published
cfrseg_training.papers.recipe_windows: cfrseg_training.recipe_windows
cli.evaluate: evaluation.cli evaluation.command
cli.options: progress
engine.click_round: engine.one_click
engine.corrections: engine.honour
engine.focus: engine.support
engine.probability_patch: engine.patch
engine.refinement: engine.cascade
engine.window_score: engine.support
evaluation.click_times: bench.everything bench.micrographs bench.recorded
evaluation.datasets: evaluation.objects
evaluation.datasets.choice: evaluation.micrographs
evaluation.datasets.label_folders: evaluation.folders evaluation.ome_zarr
evaluation.datasets.published_sets: evaluation.coco_lvis evaluation.published_sets
evaluation.evaluate_objects: evaluation.cluster evaluation.loop evaluation.processes
evaluation.network_times: bench.networks
evaluation.papers: evaluation.protocols evaluation.zoomin
evaluation.papers.published_predictor: evaluation.published
evaluation.peers: evaluation.sam
evaluation.report: evaluation.plots
evaluation.report.comparisons: evaluation.compare
evaluation.report.tables: evaluation.summary evaluation.tables
evaluation.robots: evaluation.error_centre evaluation.robot
evaluation.runner: evaluation.command
evaluation.scores: evaluation.compare evaluation.micrographs evaluation.rows
geometry.masks: engine.masks engine.propagation.shapes
geometry.windows: engine.ownership engine.patch engine.propagation.shapes window
io.atomic: atomic folders session.durable
io.axes: session.image_files session.pixels session.turning
io.click_tables: export.formats
io.images: evaluation.folders session.fingerprint session.image_files
io.label_exports: export.labels
io.object_exports: export.formats export.outlines export.rows
io.plane_image: images
model.blocks: model.convolutions model.folding
model.blocks.clickmaps: model.clickmaps model.ffcm
model.blocks.decoder: model.decoder
model.blocks.feedback_correction: model.ffcm
model.blocks.feedback_fusion: model.cffm
model.blocks.fine_feedback: model.fine_feedback
model.cfrnet: model.default
model.published.family: model.feedback model.inputs
model.published.fcfi: model.deeplab model.timm_fcfi
model.published.fetch: fetch
model.published.hrnet: model.backbones.hrnet model.hrnet model.ocr
model.published.import_checkpoint: weights_import.published weights_import.reading
model.published.starting_weights: weights_import.starting
model.published.vit: model.plain_vit model.vit_head
model.registry: model.catalogue
model.weights_file: checkpoint session.models
propagation: engine.propagation
propagation.decisions: engine.propagation.confidence engine.propagation.joining
  engine.propagation.stops engine.propagation.suggestion engine.propagation.trust
propagation.settings: engine.propagation.values
propagation.planes: engine.propagation.sharing engine.propagation.stack
propagation.planes_ahead: engine.ahead
propagation.shapes: engine.propagation.priors engine.propagation.shapes
  engine.propagation.stretches
propagation.step: engine.propagation.carried engine.propagation.step
propagation.sweep: engine.propagation.sweep
propagation.tracks: engine.propagation.stretches engine.propagation.values
  engine.support evaluation.fillers
session.format: session.schema session.values
session.imported_events: session.imports
session.recording: session.annotate
session.references: session.models session.pixels
session.replay_many: session.batch
session.replay_session: session.compare session.replay_record session.replaying
session.session: session.summary
session.session_exports: session.exports
session.session_file: session.journal session.migrate session.reading session.writing
session.session_writer: session.writer
session.unsaved_sessions: session.folders session.lock
"""
#: names that changed, by former module and name
RENAMED = {("napari_cfrseg.session.summary", "summarise"): "objects_after"}


@cache
def new_places() -> dict[str, tuple[str, ...]]:
    """Return the modules in which each former module's names are now."""
    places: dict[str, tuple[str, ...]] = {}
    for line in _MOVED.replace("\n  ", " ").strip().splitlines():
        place, _, former = line.partition(":")
        for name in map(_whole, former.split()):
            places[name] = (*places.get(name, ()), _whole(place))
    return places


def _whole(name: str) -> str:
    return name if name.startswith("cfrseg_training.") else f"napari_cfrseg.{name}"


class FormerPaths(MetaPathFinder, Loader):
    """Imports former modules; asked last, where no module of this name exists."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return how a former module or package is imported, None for all others."""
        if not fullname.startswith(("napari_cfrseg.", "cfrseg_training.")):
            return None
        inside = any(name.startswith(f"{fullname}.") for name in new_places())
        if not inside and fullname not in new_places():
            return None
        return spec_from_loader(fullname, self, is_package=inside)

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let the module hand out names from their new places."""
        former = module.__name__
        places = new_places().get(former, ())

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
