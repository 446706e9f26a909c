"""Learn from finished objects in the window, while nothing else is computed.

A lesson is many short jobs on the worker, so that clicks come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.segment.dock_view import LearningView
from napari_cfrseg.gui.segment.worker import Failure, Job
from napari_cfrseg.gui.segment.workspace import Workspace

#: finished objects before the first lesson, and how many times more before the next
_FIRST, _MORE = 4, 1.5


class Learning:
    """Starts lessons and follows what is in use."""

    def __init__(self, work: Workspace) -> None:
        self._work, self._annotator = work, work.annotator
        self._job: Job | None = None
        self._tried = 0
        self.view = LearningView()

    def want(self, wanted: bool) -> None:
        """Switch lessons on or off; what is in use stays until it is forgotten."""
        if not wanted:
            self.close()
        self._tried = 0
        self._say(wanted=wanted)
        self.consider()

    def forget(self) -> None:
        """Draw first clicks as the model itself does, until there are more objects."""
        self.close()
        self._work.submit(ev.ModelAdapted())

    def close(self) -> None:
        """End the lesson that is going on."""
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def consider(self) -> None:
        """Begin a lesson once enough objects are finished: all but the selected one."""
        work, plane = self._work, self._work.current_plane
        if not self.view.wanted or work.queue.pending or self._job is not None:
            return
        selected = work.view.selected
        count = sum(
            bool(whole.on(plane).clicks)
            for object_id, whole in work.objects.items()
            if object_id != selected
        )
        if count < max(_FIRST, _MORE * self._tried):
            return
        self._tried = count
        self._say(text=f"Learning from {count} objects …")
        left_out = () if selected is None else (selected,)
        self._next(self._annotator.lesson(plane, left_out))

    def _next(self, steps: Iterator[ev.ModelAdapted | None]) -> None:
        def done(step: object) -> None:
            if self._job is not job:
                return
            self._job = None
            if isinstance(step, ev.ModelAdapted):
                self._work.submit(step)
            elif step is StopIteration:
                self._say(text=self._kept("Nothing learnt that helps other objects"))
            else:
                self._next(steps)

        def failed(error: Failure) -> None:
            if self._job is not job:
                return
            self._job = None
            self._say(text=str(error))
            if not isinstance(error, CfrSegError):
                raise error

        self._job = job = Job(lambda _: next(steps, StopIteration), done, failed)
        self._work.runner.submit(job)

    def _kept(self, text: str) -> str:
        return f"{text}; what was learnt before stays." if self.view.in_use else text

    def follow(self, *events: ev.Event) -> None:
        """Show what is in use after events."""
        for event in events:
            if isinstance(event, ev.ModelChanged | ev.ModelAdapted):
                count = len(getattr(event, "object_ids", ()))
                text = f"Adapted to your {count} objects" if count else ""
                self._say(text=text, in_use=count > 0)

    def save(self, path: Path, said: Callable[[str], None]) -> None:
        """Write the model with what was learnt, as a model of its own."""
        self._work.runner.submit(
            Job(
                lambda _: self._annotator.save_model(path),
                lambda _: said(f"Saved {path.name}: choose it under Model."),
                lambda error: said(f"Not saved: {error}"),
            )
        )

    def _say(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self._work.show(learning=self.view)
