"""Jobs that are no events: another model to compute with, a session to go on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_cfrseg.annotation.annotator import Change
from napari_cfrseg.annotation.rounds import SegmenterLike
from napari_cfrseg.geometry.masks import Plane
from napari_cfrseg.gui.qt.worker import Job, Report
from napari_cfrseg.gui.segment.dock_state import DockState
from napari_cfrseg.session.recording import RecordedAnnotator

if TYPE_CHECKING:
    from napari_cfrseg.session.content import SessionContent


def model_job(
    annotator: RecordedAnnotator,
    state: DockState,
    load: Callable[[], SegmenterLike],
    model: str,
    plane: Plane,
) -> Job:
    """Return the job that loads a segmenter and makes it ready for clicks on a plane.

    Parameters
    ----------
    annotator
        Computes with it once it is loaded; goes on as before if that fails.
    state
        Shows how far it is.
    load
        Loads it.
    model
        The name or path it is known by.
    plane
        The plane that the next click is likely to be on.
    """

    def work(_: Report) -> SegmenterLike:
        segmenter = load()
        annotator.use(segmenter, model)
        annotator.prepare(plane)
        return segmenter

    def done(segmenter: SegmenterLike) -> None:
        state.device = str(getattr(segmenter, "device", ""))
        state.show(
            loading=False, timing=state.device, status="Ready: click on an object."
        )

    def failed(error: Exception) -> None:
        state.show(loading=False, model=annotator.model, status="No model is loaded.")
        state.tell(error)

    return Job(work, done, failed)


def session_job(
    annotator: RecordedAnnotator,
    content: SessionContent,
    done: Callable[[Change | None], None],
    failed: Callable[[Exception], None],
) -> Job:
    """Return the job that does all that a session says.

    Parameters
    ----------
    annotator
        One on which nothing was done yet.
    content
        The session.
    done
        Told what the session's last event changed; None: it has none.
    failed
        Told what went wrong.
    """

    def work(report: Report) -> Change | None:
        last = None
        for change in annotator.restore(content):
            last = change
            report(None)
        return last

    return Job(work, done, failed)
