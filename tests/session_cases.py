"""Sessions the tests share: one event of each kind, and a real recorded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from closed_form import FloodNetwork

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.session_writer import SessionWriter

SHAPE = (80, 100)
PLACES = {1: (20, 20), 2: (20, 50), 3: (20, 80), 4: (60, 20), 5: (60, 50)}


def pixels() -> np.ndarray:
    """Six grey squares that do not touch."""
    image = np.zeros(SHAPE, np.uint8)
    for y in (10, 50):
        for number, x in enumerate((10, 40, 70)):
            image[y : y + 20, x : x + 20] = 120 + 60 * number
    return image


def flood_segmenter() -> Segmenter:
    return Segmenter(FloodNetwork(), device="cpu")


def stroke(label: int, rows: slice, columns: slice, shape=SHAPE) -> LabelRuns:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return LabelRuns.from_labels(np.full(shape, label, np.int32), mask, shape)


def box_mask(rows: slice, columns: slice, shape=SHAPE) -> LabelRuns:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return LabelRuns.from_mask(mask)


PROPOSAL = ev.Proposal(
    box_mask(slice(3, 9), slice(4, 8)), (5.5, 6.0), 0.1 + 0.2, (1.0, -0.5)
)
#: at least one of every kind; the values are odd, the order is not to be applied
EVERY_EVENT: tuple[ev.Event, ...] = (
    ev.ObjectCreated(1),
    ev.ObjectCreated(7, 'Zelle "ü"\n7', "#a0B1c2", 0.125),
    ev.ObjectDeleted(7),
    ev.ObjectRenamed(1, "核"),
    ev.ObjectRecoloured(1, "#000000"),
    ev.ObjectClassified(1, "nucleus, mitotic"),
    ev.ObjectLocked(1, True),
    ev.ObjectsMerged((7, 1)),
    ev.ObjectSplit(1, (3,), (5.5, 6), 8),
    ev.ObjectReset(1, (3, 0)),
    ev.ClickAdded(1, (), (0.1 + 0.2, 1e-300), True, 0),
    ev.ClickAdded(1, (2, 5), (3, 4), False, 9, -2, FocusHint(33.3, 4.0), position=0),
    ev.ClickAdded(1, (), (5, 6), True, 10, box=(2, 3, 9, 12)),
    ev.ClickAdded(1, (), (5, 7), True, 11, stroke=True),
    ev.ClicksMoved(((0, (1.5, 2.5)), (9, (1 / 3, 2.0)))),
    ev.ClickRefocused(9, 3),
    ev.CandidateChosen(9, 2),
    ev.ClicksRemoved((0, 9)),
    ev.Painted((1,), stroke(2, slice(1, 3), slice(4, 9))),
    ev.Painted((), LabelRuns(SHAPE, (), (), ())),
    ev.MaskImported(1, (), box_mask(slice(0, 80), slice(99, 100))),
    ev.LabelsImported((0,), stroke(3, slice(0, 1), slice(0, 1))),
    ev.Propagated((1, 7), (2, 5), 0, 1, 8, 9, (1.75, 0.8, 0.1 + 0.2), True, False, 3),
    ev.Propagated((1,), (0,), 0, 0, 3, 4),
    ev.PlaneConfirmed(1, (2, 5)),
    ev.ObjectsSuggested((2, 5), ((5.5, 6.0, 0.1 + 0.2),)),
    ev.SuggestionsAccepted(9, (2, 5), 12, (PROPOSAL,)),
    ev.SuggestionsRejected((2, 5), (PROPOSAL,)),
    ev.ThresholdChanged(1, 0.3000000004),
    ev.RefinementChanged(Refinement("a-cfr", 7, 3)),
    ev.RefinementChanged(Refinement.standard()),
    ev.ModelChanged("other", "ab" * 32),
    ev.ModelChanged("unknown"),
    ev.ModelAdapted((1, 7), "cd" * 32, (0.1 + 0.2, -1e-9), 0.05),
    ev.ModelAdapted(),
    ev.OverlapChanged(ev.OverlapRule.OVERWRITE),
    ev.Undone(),
    ev.Redone(),
)
#: kinds that a version of the file added
ADDED_IN = {
    2: (ev.ObjectClassified, ev.ModelChanged, ev.Propagated, ev.PlaneConfirmed),
    3: (ev.CandidateChosen,),
    4: (
        ev.ObjectsMerged,
        ev.ObjectSplit,
        ev.ObjectsSuggested,
        ev.SuggestionsAccepted,
        ev.SuggestionsRejected,
        ev.ModelAdapted,
    ),
}


def is_of(version: int, event: ev.Event) -> bool:
    """Whether a file of a version can hold an event."""
    later = tuple(k for v, kinds in ADDED_IN.items() if v > version for k in kinds)
    drawn = isinstance(event, ev.ClickAdded) and (event.box or event.stroke)
    return not isinstance(event, later) and (version >= 4 or not drawn)


#: five objects with undo, deletion, drag, locked objects and a painted edit
WORK: tuple[ev.Event, ...] = (
    *(
        event
        for number, yx in PLACES.items()
        for event in (
            ev.ObjectCreated(number),
            ev.ClickAdded(number, (), yx, True, number, hint=FocusHint(40.0)),
        )
    ),
    ev.ClickAdded(1, (), (20, 27), False, 11),
    ev.ObjectLocked(2, True),
    ev.Undone(),
    ev.Redone(),
    ev.ClicksMoved(((11, (12.0, 12.0)),)),
    ev.Undone(),
    ev.ClicksMoved(((11, (27.0, 20.0)),)),
    ev.Painted((), stroke(3, slice(14, 34), slice(66, 74))),
    ev.Painted((), stroke(0, slice(55, 60), slice(40, 70))),
    ev.ClickAdded(5, (), (52, 42), True, 12, focus_shift=1),
    ev.ObjectDeleted(4),
    ev.Undone(),
    ev.ClicksRemoved((4,)),
    ev.RefinementChanged(Refinement.cfr(2)),
    ev.ObjectCreated(6, "with a mask", "#112233"),
    ev.MaskImported(6, (), box_mask(slice(52, 64), slice(72, 88))),
    ev.ClickAdded(6, (), (66, 80), True, 13),
    ev.ObjectClassified(6, "by hand"),
    ev.ThresholdChanged(6, 0.4),
    ev.OverlapChanged(ev.OverlapRule.OVERWRITE),
    ev.ObjectDeleted(3),
    ev.Undone(),
)


def start(folder: Path, name: str = "work", image: np.ndarray | None = None):
    """Write an image and begin a session on it: (annotator, writer)."""
    image = pixels() if image is None else image
    path = folder / f"{name}.tif"
    tifffile.imwrite(path, image)
    content = SessionContent(
        reference_of(image, path=path, folder=folder),
        settings=SessionSettings(threads=1),
    )
    writer = SessionWriter.create(folder / f"{name}.cfrseg.json", content)
    annotator = RecordedAnnotator(
        lambda plane: image[plane], image.shape, flood_segmenter()
    )
    annotator.writer = writer
    return annotator, writer


def record(folder: Path, events=WORK, name: str = "work"):
    """Record events as a window does; returns (annotator, session's path)."""
    annotator, writer = start(folder, name)
    for event in events:
        annotator.apply(event)
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
    return annotator, writer.path


def save_model(folder: Path, seed: int = 0, name: str = "small") -> Path:
    """Write random weights of a small network of the default family."""
    import torch

    from napari_cfrseg.model import weights_file as checkpoint
    from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

    torch.manual_seed(seed)
    small = CfrNetConfig(
        widths=(8, 8, 8, 8), feedback_width=8, head_width=8, grid_size=64
    )
    network = CfrNet(small).eval()
    path = folder / f"{name}.safetensors"
    said = checkpoint.Metadata(architecture=dict(network.architecture()), name=name)
    checkpoint.save(path, network, said)
    return path


def record_with(
    model: Path,
    folder: Path,
    name: str,
    more: tuple[ev.Event, ...] = (),
    *,
    shift: int = 0,
    snapshot: bool = True,
) -> tuple[np.ndarray, Path]:
    """Record a few objects with real weights, and more; returns (labels, session)."""
    from napari_cfrseg.session.references import model_reference

    image = np.roll(pixels(), shift, axis=1)
    path = folder / f"{name}.tif"
    tifffile.imwrite(path, image)
    content = SessionContent(
        reference_of(image, path=path, folder=folder, spacing=(0.5, 0.5)),
        model_reference(model),
        SessionSettings(threads=1, refinement=Refinement.cfr(1)),
    )
    writer = SessionWriter.create(folder / f"{name}.cfrseg.json", content)
    annotator = RecordedAnnotator(
        lambda plane: image[plane],
        image.shape,
        Segmenter.load(model, device="cpu", threads=1),
    )
    annotator.writer = writer
    annotator.apply(ev.RefinementChanged(Refinement.cfr(1)))
    for number in (1, 2):
        annotator.apply(ev.ObjectCreated(number, f"cell {number}"))
        annotator.apply(ev.ClickAdded(number, (), PLACES[number], True, number))
    annotator.apply(ev.ClickAdded(1, (), (28, 12), False, 3))
    for event in more:
        annotator.apply(event)
    if snapshot:
        writer.save(annotator.snapshot(writer.event_count))
    writer.close()
    return annotator.labels_array(), writer.path
