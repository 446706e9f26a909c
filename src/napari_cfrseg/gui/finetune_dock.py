"""The fine-tuning dock: labels in, a model that needs fewer clicks out.

Training runs in its own process, which continues when the dock or napari is closed;
a dock opened later finds it by its folder (:mod:`napari_cfrseg.training_job`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox, LineEdit
from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.dock_widget import DockWidget, asks, form, images_of, row
from napari_cfrseg.gui.finetune_job import (
    FineTuneRun,
    advice,
    free_name,
    labelled_images,
    last_words,
    pixels_of,
    progress_text,
    request_of,
    title_of,
)
from napari_cfrseg.gui.finetune_plots import Curve, ReportTable
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.gui.segment.layers import Listener
from napari_cfrseg.gui.segment.model_loading import DEFAULT_MODEL
from napari_cfrseg.model.weights_file import list_models
from napari_cfrseg.training_job import (
    JobStatus,
    TrainingJob,
    list_jobs,
    verdict_sentence,
)

if TYPE_CHECKING:
    import napari

#: what is chosen for every image that has labels
ALL_IMAGES = "all images with labels"
#: milliseconds between two readings of the jobs' folder
LOOK_MS = 500


class FineTuneDock(DockWidget):
    """Fine-tune a model on an image and its labels, or on a folder of them."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        self._closed = False  # events come while Qt begins
        super().__init__()
        self.left.connect(self.let_go)
        self.viewer = napari_viewer
        self.run = FineTuneRun()
        self._shown: object = None
        self._listed: list[tuple[str, Path]] = []
        self._labelled: list[tuple[Image, Labels]] = []
        self._make_controls()
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.look)
        events = self.viewer.layers.events
        changed = (events.inserted, events.removed, events.renamed)
        self._listener = Listener(*((event, self._on_layers) for event in changed))
        self._on_layers()
        self.run.find()
        self.look()
        self._timer.start()

    @property
    def job(self) -> TrainingJob | None:
        """The job that is shown, None before there is one."""
        return self.run.job

    # -- the user's actions ------------------------------------------------------------

    def start(self) -> None:
        """Start a fine-tuning with the choices, or continue an interrupted one."""
        if self.run.is_interrupted:
            self.run.go_on()
            self.look()
            return
        name, folder = free_name(self.name.value), self._chosen_folder()
        pairs = self._chosen_layers() if folder is None else []
        if folder is None and not pairs:
            show_error("choose an image layer and a labels layer, or a folder")
            return
        try:
            pixels = [pixels_of(*pair, self.viewer) for pair in pairs]
        except CfrSegError as error:
            show_error(str(error))
            return
        request = request_of(
            name,
            self.base.value,
            self.minutes.value,
            sparse=not self.all_labelled.value,
            folder=folder,
        )
        self.run.begin(name, request, pixels)
        self._shown = None
        self.look()

    def _chosen_layers(self) -> list[tuple[Image, Labels]]:
        """Return the images chosen, each with its labels."""
        if self.image.value == ALL_IMAGES:
            return self._labelled
        pair = self.image.value, self.labels.value
        return [] if None in pair else [pair]

    def _chosen_folder(self) -> Path | None:
        chosen = self.folder.value
        return None if str(chosen) in ("None", "", ".") else Path(chosen)

    def pause(self) -> None:
        """Pause, or go on."""
        if self.job is not None:
            self.job.set_control("run" if self.job.control == "pause" else "pause")
            self.look()

    def stop(self) -> None:
        """Stop training and judge the best so far."""
        if self.job is not None:
            self.job.set_control("stop")
            self.look()

    def cancel(self) -> None:
        """End the training now; it can go on later."""
        self.run.cancel()
        self.look()

    def use(self) -> None:
        """Choose the shown job's model in the docks that segment."""
        try:
            model = self.run.keep_candidate()
        except OSError as error:
            show_error(f"the model cannot be used: {error}")
            return
        self._offer(model, choose=True)
        self.look()

    def delete(self) -> None:
        """Delete the shown job; a model that was kept stays."""
        said = "It can still go on, or its model be used. Delete it for good?"
        if self.run.has_more and not asks(self, "Delete", said):
            return
        self.run.delete()
        self._shown = None
        self.look()

    def _choose_job(self, folder: Path | None) -> None:
        if folder is not None:
            self.run.job = TrainingJob(folder)
            self._shown = None
            self.look()

    # -- looking at the jobs -----------------------------------------------------------

    def look(self) -> None:
        """Show the jobs and the progress of the chosen one."""
        error = self.run.hand_over_error()
        if error:
            show_error(error)
        job = self.job
        status = JobStatus() if job is None else job.status
        active, interrupted = self.run.is_active, self.run.is_interrupted
        self._list_jobs()
        self.start_button.setEnabled(not self.run.is_busy)
        self.start_button.setText("Go on" if interrupted else "Start")
        trains = active and status.phase in ("training", "paused")
        paused = job is not None and job.control == "pause"
        self.pause_button.setEnabled(trains)
        self.pause_button.setText("Go on" if paused and active else "Pause")
        self.stop_button.setEnabled(trains)
        self.cancel_button.setEnabled(active)
        self.progress.setVisible(job is not None and not job.is_finished)
        for made in (self.use_button, self.delete_button):
            made.setVisible(job is not None)
        self.delete_button.setEnabled(job is not None and not active)
        self.progress.setValue(round(1000 * status.share))
        self.status.setText(self._sentence(status, interrupted=interrupted))
        self.curve.show_rows([] if job is None else job.curve())
        shown = () if job is None else (job.folder, status.phase)
        if shown != self._shown:
            self._shown = shown
            self._show_result(job, status)

    def _list_jobs(self) -> None:
        listed = [(title_of(job), job.folder) for job in list_jobs()]
        if listed == self._listed:
            chosen = None if self.job is None else self.job.folder
            if self.jobs.value == chosen:
                return
        self._listed = listed
        with self.jobs.changed.blocked():
            self.jobs.choices = listed
            self.jobs.value = None if self.job is None else self.job.folder
        self.jobs.enabled = bool(listed)

    def _sentence(self, status: JobStatus, *, interrupted: bool) -> str:
        if self.job is None:
            pairs, these = self._chosen_layers(), "these labels"
            if not pairs and self._chosen_folder() is None:
                return "Choose an image and its labels, or a folder."
            if self.image.value == ALL_IMAGES and self._chosen_folder() is None:
                listed = [f"“{y.name}” on “{x.name}”" for x, y in pairs]
                shown = ", ".join([*listed[:4], *(["…"] if listed[4:] else [])])
                these = f"{len(pairs)} images ({shown})"
            return (
                f"Start trains a new model on {these}. You can go on clicking, and "
                "close napari, meanwhile."
            )
        if interrupted:
            cancelled = self.job.control == "cancel"
            why = "Cancelled" if cancelled else f"Interrupted ({last_words(self.job)})"
            return f"{why}. Go on continues where it stopped, Delete removes it."
        return verdict_sentence(self.job.report) or progress_text(status)

    def _show_result(self, job: TrainingJob | None, status: JobStatus) -> None:
        report = {} if job is None else job.report
        self.table.show_report(report)
        self.advice.setText(advice(report))
        usable = [status.model]
        if status.verdict == "not proven":
            usable.append(str(report.get("candidate", "")))
        self.use_button.setEnabled(any(Path(p).is_file() for p in usable if p))
        if status.model and Path(status.model).is_file():
            self._offer(Path(status.model))

    def _offer(self, model: Path, *, choose: bool = False) -> None:
        """Put a model into the lists of the docks that segment; maybe choose it."""
        name, docks = model.stem, self.viewer.window.dock_widgets.values()
        choices = [d.model_choice for d in docks if isinstance(d, ClickDock)]
        for choice in choices:
            chosen = choice.value
            with choice.changed.blocked():
                choice.choices = sorted({*choice.choices, name})
                choice.value = chosen
            if choose:
                choice.value = name
        chosen = self.base.value
        self.base.choices = sorted({*self.base.choices, name})
        self.base.value = chosen
        if choose:
            said = "is in use in" if choices else "was kept: choose it as Model in"
            show_info(f"The model {name} {said} Segment with clicks.")

    # -- widgets -----------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.image = ComboBox(
            label="Image",
            choices=lambda _: [
                *images_of(self.viewer),
                *([ALL_IMAGES] if len(self._labelled) > 1 else []),
            ],
            nullable=True,
            tooltip="The image the labels were drawn on",
        )
        self.image.changed.connect(self._on_image)
        self.labels = ComboBox(
            label="Labels",
            choices=lambda _: [x for x in self.viewer.layers if isinstance(x, Labels)],
            nullable=True,
            tooltip="Objects clicked or painted; two are enough to begin",
        )
        self.folder = FileEdit(
            label="or folder",
            mode="d",
            nullable=True,
            value=None,
            tooltip="With images/ and labels/, *.zarr or sessions; then no layers",
        )
        said = "Every object is labelled. Off: the rest may be anything"
        self.all_labelled = CheckBox(label="Labelled", value=False, tooltip=said)
        self.all_labelled.native.setText("every object")
        self.base = ComboBox(
            label="Base model",
            choices=sorted({DEFAULT_MODEL, *list_models()}),
            value=DEFAULT_MODEL,
            tooltip="Training starts from it and does not change it",
        )
        self.minutes = FloatSpinBox(
            label="Minutes",
            min=0.1,
            max=1440,
            step=1,
            value=15,
            tooltip="Minutes of training, without judging before and after",
        )
        said = "Name of the new model"
        self.name = LineEdit(label="Name", value="my-model", tooltip=said)
        self.jobs = ComboBox(
            label="Jobs",
            choices=[],
            nullable=True,
            tooltip="Fine-tunings that run or have ended; choose one to see its result",
        )
        self.jobs.changed.connect(self._choose_job)

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        data = (self.image, self.labels, self.folder, self.all_labelled)
        column.addLayout(form(*data, self.base, self.minutes, self.name, self.jobs))

        def button(text: str, act: Callable[[], None], hint: str = "") -> QPushButton:
            made = QPushButton(text)
            made.setToolTip(hint)
            made.clicked.connect(act)
            return made

        self.start_button = button("Start", self.start)
        self.pause_button = button("Pause", self.pause)
        said = "Stop training, and judge the best model so far"
        self.stop_button = button("Stop, keep best", self.stop, said)
        self.cancel_button = button("Cancel", self.cancel, "End it now; Go on resumes")
        said = "Choose it for clicking, even if it is not proven"
        self.use_button = button("Use this model", self.use, said)
        said = "Delete this job; a model that was kept stays"
        self.delete_button = button("Delete", self.delete, said)
        does = (self.start_button, self.pause_button, self.stop_button)
        column.addLayout(row(*does, self.cancel_button))
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setTextVisible(False)
        self.status = QLabel()
        self.advice = QLabel()
        for label in (self.status, self.advice):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.curve = Curve()
        self.table = ReportTable()
        for widget in (self.progress, self.status, self.curve, self.table):
            column.addWidget(widget)
        column.addWidget(self.advice)
        column.addLayout(row(self.use_button, self.delete_button))
        column.addStretch()
        self.fill_with(inner, 300)

    def _on_image(self, chosen: object) -> None:
        self.labels.enabled = chosen != ALL_IMAGES

    def _on_layers(self) -> None:
        self._labelled = labelled_images(self.viewer.layers)
        for choice in (self.image, self.labels):
            choice.reset_choices()
            there = [layer for layer in choice.choices if layer is not None]
            if choice.value is None and len(there) == 1:
                choice.value = there[0]
        if self.image.value is None and len(self._labelled) > 1:
            self.image.value = ALL_IMAGES

    def let_go(self) -> None:
        """Stop updating; a running training continues."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        self.run.wait()
        self._listener.close()
