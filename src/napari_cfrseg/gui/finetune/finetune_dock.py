"""The fine-tuning dock: labels in, a model that needs fewer clicks out.

Training runs in a process of its own, which goes on when the dock or napari is closed;
a dock opened later finds it by its folder (:mod:`napari_cfrseg.training_job`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox, LineEdit
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.dock_widget import DockWidget, form, images_of
from napari_cfrseg.gui.finetune.finetune_job import (
    FineTuneRun,
    Pixels,
    free_name,
    last_words,
    pixels_of,
    request_of,
)
from napari_cfrseg.gui.finetune.finetune_views import (
    Curve,
    ReportTable,
    advice,
    how_far,
)
from napari_cfrseg.gui.segment.dock import ClickDock
from napari_cfrseg.gui.segment.worker import DEFAULT_MODEL, installed_models
from napari_cfrseg.training_job import JobStatus, TrainingJob

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

#: milliseconds between two looks at the job's folder
LOOK_MS = 500


class FineTuneDock(DockWidget):
    """Fine-tune a model on an image and its labels, or on a folder of them.

    Parameters
    ----------
    napari_viewer
        The viewer the dock is opened in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        self._closed = False  # events come while Qt begins
        super().__init__()
        self.viewer = napari_viewer
        self.run = FineTuneRun()
        self._shown: object = None
        self._make_controls()
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.look)
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.renamed):
            event.connect(self._on_layers)
        self.run.find()
        self.look()
        self._timer.start()

    @property
    def job(self) -> TrainingJob | None:
        """The job that is looked at, None before there is one."""
        return self.run.job

    # -- what a person does ------------------------------------------------------------

    def start(self) -> None:
        """Start a fine-tuning with what is chosen, or let a killed one go on."""
        if self.run.is_interrupted:
            self.run.go_on()
            self.look()
            return
        name = free_name(self.name.value)
        folder = self._folder()
        try:
            pixels = None if folder is not None else self._pixels()
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

    def keep(self) -> None:
        """Keep a model whose gain is not proven."""
        if self.job is None:
            return
        try:
            target = self.run.keep_candidate()
        except OSError as error:
            show_error(f"the model cannot be kept: {error}")
            return
        self.keep_button.setEnabled(False)
        self._offer(target)

    # -- looking at the job ------------------------------------------------------------

    def look(self) -> None:
        """Show how far the job is."""
        error = self.run.hand_over_error()
        if error:
            show_error(error)
        job = self.job
        status = JobStatus() if job is None else job.status
        active = self.run.is_active
        self.start_button.setEnabled(not active)
        interrupted = self.run.is_interrupted
        self.start_button.setText("Go on" if interrupted else "Start")
        self.pause_button.setEnabled(active)
        paused = job is not None and job.control == "pause"
        self.pause_button.setText("Go on" if paused and active else "Pause")
        self.stop_button.setEnabled(active and status.phase in ("training", "paused"))
        self.progress.setValue(round(1000 * status.share))
        self.status.setText(self._sentence(status, interrupted=interrupted))
        if job is not None:
            self.curve.show_rows(job.curve())
            if job.is_finished and self._shown != job.folder:
                self._shown = job.folder
                self._finish(job, status)

    def _sentence(self, status: JobStatus, *, interrupted: bool) -> str:
        if self.job is None:
            return "Choose an image and its labels, or a folder."
        if interrupted:
            return f"Interrupted ({last_words(self.job)}). Go on where it stopped?"
        return how_far(status)

    def _finish(self, job: TrainingJob, status: JobStatus) -> None:
        report = job.report
        self.table.show_report(report)
        self.advice.setText(advice(report))
        undecided = status.verdict == "not proven" and not status.model
        self.keep_button.setVisible(undecided)
        self.keep_button.setEnabled(undecided)
        if status.model:
            self._offer(Path(status.model))

    def _offer(self, model: Path) -> None:
        """Put a new model into the lists of the docks that segment."""
        name = model.stem
        for dock in self.viewer.window.dock_widgets.values():
            if isinstance(dock, ClickDock):
                choice = dock.model_choice
                chosen = choice.value
                with choice.changed.blocked():
                    choice.choices = sorted({*choice.choices, name})
                    choice.value = chosen
        chosen = self.base.value
        self.base.choices = sorted({*self.base.choices, name})
        self.base.value = chosen
        show_info(f"The model {name} can be chosen in the segmenting dock.")

    # -- data --------------------------------------------------------------------------

    def _pixels(self) -> Pixels:
        image, labels = self.image.value, self.labels.value
        if image is None or labels is None:
            msg = "choose an image layer and a labels layer, or a folder"
            raise CfrSegError(msg)
        return pixels_of(image, labels)

    def _folder(self) -> Path | None:
        value = self.folder.value
        return None if value is None or str(value) in ("", ".") else Path(value)

    # -- looks -------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.image = ComboBox(
            label="Image",
            choices=lambda _: images_of(self.viewer),
            nullable=True,
            tooltip="The image the labels were drawn on",
        )
        self.labels = ComboBox(
            label="Labels",
            choices=self._all_labels,
            nullable=True,
            tooltip="Objects clicked or painted; two are enough to begin",
        )
        self.folder = FileEdit(
            label="or folder",
            mode="d",
            nullable=True,
            value=None,
            tooltip="With images/ and labels/, *.zarr or click sessions; it goes first",
        )
        self.all_labelled = CheckBox(
            label="Labelled",
            value=False,
            tooltip="Every object is labelled. Off: the rest may be anything",
        )
        self.all_labelled.native.setText("every object is labelled")
        names = sorted({DEFAULT_MODEL, *installed_models()})
        self.base = ComboBox(
            label="Base model",
            choices=names,
            value=DEFAULT_MODEL,
            tooltip="What training starts from; it is left as it is",
        )
        self.minutes = FloatSpinBox(
            label="Minutes",
            min=0.1,
            max=1440,
            step=1,
            value=15,
            tooltip="Of training; judging before and after comes on top",
        )
        self.name = LineEdit(
            label="Name", value="my-model", tooltip="What the new model is called"
        )

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        column.addLayout(
            form(
                self.image,
                self.labels,
                self.folder,
                self.all_labelled,
                self.base,
                self.minutes,
                self.name,
            )
        )
        buttons = QHBoxLayout()
        self.start_button = QPushButton("Start")
        self.pause_button = QPushButton("Pause")
        self.stop_button = QPushButton("Stop, keep best")
        self.keep_button = QPushButton("Keep it although it is not proven")
        for button, action in (
            (self.start_button, self.start),
            (self.pause_button, self.pause),
            (self.stop_button, self.stop),
        ):
            button.clicked.connect(action)
            buttons.addWidget(button)
        self.keep_button.clicked.connect(self.keep)
        self.keep_button.hide()
        column.addLayout(buttons)
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
        column.addWidget(self.keep_button)
        column.addStretch()
        self.fill_with(inner, 300)

    def _all_labels(self, _: object = None) -> list[Labels]:
        from napari.layers import Labels

        return [layer for layer in self.viewer.layers if isinstance(layer, Labels)]

    def _on_layers(self, _: Any = None) -> None:
        self.image.reset_choices()
        self.labels.reset_choices()

    def close_dock(self) -> None:
        """Look no more; a training goes on."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        self.run.wait()
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.renamed):
            event.disconnect(self._on_layers)

    def let_go(self) -> None:
        """Look no more, as :meth:`close_dock`."""
        self.close_dock()
