"""The dock's settings, and its status line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FloatSlider, SpinBox
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QProgressBar, QWidget

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.dock_widget import (
    TextLine,
    ask_where,
    button,
    check_box,
    column_in,
    form,
    on_current,
    row,
)
from napari_cfrseg.gui.preferences import ACTIONS, Preferences, shown_key
from napari_cfrseg.gui.segment.dock_view import DockView
from napari_cfrseg.gui.segment.resting_pointer import Resting
from napari_cfrseg.model.weights_file import SUFFIX, models_folder

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current
    from napari_cfrseg.gui.segment.controller import Controller

_REFINEMENTS = {
    "once": "standard",
    "a fixed number of times (CFR)": "cfr",
    "until it stops changing (A-CFR)": "a-cfr",
}
_MOUSE = (
    ("click", "belongs to the object; apart from it: the next object"),
    ("right-click", "does not belong to it; on another object: to that one"),
    ("Alt+click", "select the object there"),
    ("Shift+drag", "a box around an object: its first mask ends there"),
    ("Ctrl+drag", "a stroke: clicks along it (right button: the other sign)"),
    ("… over suggestions", "accept (right button: reject) all it touches"),
    ("Ctrl+wheel", "outline wider, tighter (in a stack: Shift+wheel)"),
)
_TIMING = "Device, time and refinement steps of the last click"
_RULES = {
    "neighbours keep their pixels": OverlapRule.KEEP,
    "this object takes them": OverlapRule.OVERWRITE,
}
_RESTING = {
    "the pointer does nothing": Resting.NOTHING,
    "computes the click ahead": Resting.PREPARE,
    "shows the click's outline": Resting.OUTLINE,
}


class SettingsPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Outline, overlap, how often the network looks, and what is displayed."""

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        refinement = preferences.refinement
        self.kind = ComboBox(
            label="Refine",
            choices=list(_REFINEMENTS.items()),
            value=refinement.kind,
            tooltip="How the network refines its own mask after a click",
        )
        self.steps = SpinBox(
            label="Most steps",
            value=refinement.extra_steps or Refinement.adaptive().extra_steps,
            min=1,
            max=20,
            tooltip="At most this many refinement steps (n of CFR-n and A-CFR-n)",
        )
        self.changed_px = SpinBox(
            label="Least change",
            value=refinement.stop_changed_px,
            min=0,
            max=10_000,
            tooltip="Stop once a step changes at most this many pixels",
        )
        self.threshold = FloatSlider(
            label="Outline",
            value=preferences.threshold,
            min=0.05,
            max=0.95,
            step=0.01,
            tooltip="Left: wider, right: tighter. The selected object follows at once",
        )
        self.rule = ComboBox(
            label="Overlap",
            choices=list(_RULES.items()),
            value=preferences.rule,
            tooltip="Who gets a pixel of two objects; locked ones always keep theirs",
        )
        self.resting = ComboBox(
            label="At rest",
            choices=list(_RESTING.items()),
            value=preferences.resting,
            tooltip="While the pointer rests, the click is computed ahead, "
            "so that it is answered at once (not on battery)",
        )
        said = "Where the network sees another object, a click begins that one"
        self.auto_next = check_box("a click apart begins the next object", said)
        self.auto_next.setChecked(preferences.auto_next)
        said = "Draw objects as outlines, not as filled areas"
        self.outlines = check_box("outlines only", said)
        said = "Show the clicks of the selected object only"
        self.own_clicks = check_box("hide others' clicks", said)
        said = (
            "Adapt first clicks and suggestions to your finished objects while nothing "
            "else is computed; used only if it helps other objects of yours"
        )
        self.learn = check_box("learn from finished objects", said)
        self.forget = button("Forget", "Draw first clicks as the model itself does")
        said = "Save the model with what was learnt, as a model of its own"
        self.save_model = button("Save as model …", said)
        self.learnt = QLabel()
        column = column_in(self)
        looks = (self.kind, self.steps, self.changed_px)
        column.addLayout(form(self.threshold, self.rule, *looks, self.resting))
        column.addWidget(self.auto_next)
        column.addLayout(row(self.outlines, self.own_clicks))
        column.addWidget(self.learn)
        column.addWidget(self.learnt)
        column.addLayout(row(self.forget, self.save_model))
        self._enable()

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        does = partial(on_current, current)
        refine = does(lambda c, refinement: c.set_refinement(refinement), takes=1)
        for widget in (self.kind, self.steps, self.changed_px):
            widget.changed.connect(self._enable)
            widget.changed.connect(lambda _: refine(self.refinement))
        self.threshold.changed.connect(
            does(lambda c, value: c.set_threshold(float(value)), takes=1)
        )
        self.rule.changed.connect(does(lambda c, rule: c.set_rule(rule), takes=1))
        self.learn.toggled.connect(does(lambda c, on: c.learning.want(on), takes=1))
        self.forget.clicked.connect(does(lambda c: c.learning.forget()))
        self.save_model.clicked.connect(does(self._save_model))
        for box in (self.outlines, self.own_clicks, self.auto_next):
            box.toggled.connect(does(self.apply_to))

    def apply_to(self, controller: Controller) -> None:
        """Let a controller take clicks and show its layers as chosen here."""
        controller.auto_next = self.auto_next.isChecked()
        controller.labels.show_outlines(self.outlines.isChecked())
        controller.clicks.show_own_only(self.own_clicks.isChecked())

    def _save_model(self, controller: Controller) -> None:
        folder = models_folder()
        folder.mkdir(parents=True, exist_ok=True)
        start = str(folder / f"{controller.image.layer.name} adapted{SUFFIX}")
        target = ask_where(self, "Save as model", start, {SUFFIX: "Model"})
        if target is not None:
            controller.learning.save(target, controller.say)

    @property
    def refinement(self) -> Refinement:
        """The refinement chosen."""
        kind = self.kind.value
        steps = 0 if kind == "standard" else int(self.steps.value)
        return Refinement(kind, steps, int(self.changed_px.value))

    def show_view(self, view: DockView) -> None:
        """Show the state; what is shown already is not touched."""
        learning = view.learning
        for box, on in ((self.learn, learning.wanted), (self.outlines, view.outlined)):
            with QSignalBlocker(box):
                box.setChecked(box.isChecked() if on is None else on)
        for made in (self.forget, self.save_model):
            made.setVisible(learning.in_use)
        self.learnt.setText(learning.text)
        self.learnt.setVisible(bool(learning.text))
        shown: list[tuple[Any, Any]] = [(self.rule, view.rule)]
        if abs(self.threshold.value - view.threshold) > 1e-6:
            shown.append((self.threshold, view.threshold))
        if self.refinement != view.refinement:
            found = view.refinement
            shown += [(self.kind, found.kind), (self.changed_px, found.stop_changed_px)]
            if found.extra_steps:
                shown.append((self.steps, found.extra_steps))
        for widget, value in shown:
            with widget.changed.blocked():
                widget.value = value
        self._enable()

    def _enable(self, _: Any = None) -> None:
        self.steps.enabled = self.kind.value != "standard"
        self.changed_px.enabled = self.kind.value == "a-cfr"


class StatusPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """The status line, with a button that mends what it speaks of, and progress.

    Nothing here is animated: any repaint in the dock makes Qt compose the whole window
    again, the canvas included, and takes the processor from the click.
    """

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        self.text = TextLine(lines=2)
        selectable = Qt.TextInteractionFlag.TextSelectableByMouse
        self.text.label.setTextInteractionFlags(selectable)
        self.text.label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.remedy = button("", "")
        self.remedy.setVisible(False)
        self.remedy.clicked.connect(self._mend)
        self._view = DockView()
        self.timing = TextLine()
        self.timing.label.setWordWrap(False)
        self.timing.setToolTip(_TIMING)
        self.bar = QProgressBar()
        self.bar.setFixedHeight(12)
        self.bar.setVisible(False)
        self.cancel = button("Cancel", "Cancel what is being computed (Esc)")
        self.cancel.setEnabled(False)
        self.help = button("?", f"All keys ({shown_key(keys, 'help')})")
        self.help.setFixedWidth(28)
        self.help.clicked.connect(lambda: self.show_keys())
        self._keys = keys
        column = column_in(self, 2)
        column.addWidget(self.text)
        below = row(self.remedy, self.timing, self.bar, self.cancel, self.help)
        for place, stretch in enumerate((3, 1, 2)):
            below.setStretch(place, stretch)
        column.addLayout(below)

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        self.cancel.clicked.connect(
            on_current(current, lambda c: c.cancel_pending(), at_once=True)
        )

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        self._view = view
        self.text.setText(view.status)
        self.remedy.setVisible(view.remedy is not None)
        self.remedy.setText("" if view.remedy is None else view.remedy.text)
        done, total = view.progress
        busy = view.pending + total > 0 or view.suggestions.running
        self.cancel.setEnabled(busy or view.loading)
        self.bar.setVisible(total > 0)
        self.bar.setMaximum(max(total, 1))
        self.bar.setValue(done)
        self.timing.setVisible(total == 0 and view.remedy is None)
        self.timing.setToolTip(f"{_TIMING}\n{view.placement}".strip())
        waiting = f" ({view.pending})" if view.pending > 1 else ""
        self.timing.setText(f"computing …{waiting}" if view.pending else view.timing)

    def _mend(self) -> None:
        if self._view.remedy is not None:
            self._view.remedy.act()

    def show_keys(self) -> None:
        """Show all keys in a window of their own."""
        keys = [(shown_key(self._keys, a.name), a.text) for a in ACTIONS]
        rows = [
            f"<tr style='white-space: nowrap'><td><b>{key}</b></td><td>{what}</td></tr>"
            for key, what in (*_MOUSE, *keys)
        ]
        half = -(-len(rows) // 2)  # in one column they are higher than some screens
        columns = ("".join(some) for some in (rows[:half], rows[half:]))
        text = "".join(f"<td><table cellpadding=2>{c}</table></td>" for c in columns)
        box = QMessageBox(self)
        box.setWindowTitle("Keys")
        box.setText(f"<table cellspacing=8><tr>{text}</tr></table>")
        others = [a.name for a in ACTIONS if a.layers and "labels" not in a.layers]
        own = [f"<b>{shown_key(self._keys, name)}</b>" for name in others]
        box.setInformativeText(
            "Keys can be changed in File → Preferences → CFR-Seg. While the layer of "
            f"objects is selected, {', '.join(own)} are napari's own."
        )
        box.setModal(False)
        box.show()
