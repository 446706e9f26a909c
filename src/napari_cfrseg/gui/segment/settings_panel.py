"""The dock's settings (refinement, threshold, overlap) and its status line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FloatSlider, SpinBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.dock_widget import button, form, on_current
from napari_cfrseg.gui.preferences import ACTIONS, Preferences, shown_key
from napari_cfrseg.gui.segment.projection import DockView

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current

_REFINEMENTS = {
    "Standard (once)": "standard",
    "CFR-n (fixed)": "cfr",
    "A-CFR-n (until still)": "a-cfr",
}
_RULES = {
    "Keep neighbours' pixels": OverlapRule.KEEP,
    "Overwrite neighbours": OverlapRule.OVERWRITE,
}


class SettingsPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Refinement, threshold, overlap."""

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        refinement = preferences.refinement
        self.kind = ComboBox(
            label="Refinement",
            choices=list(_REFINEMENTS.items()),
            value=refinement.kind,
            tooltip="How often the network looks at its own mask again",
        )
        self.steps = SpinBox(
            label="Most steps",
            value=refinement.extra_steps or Refinement.adaptive().extra_steps,
            min=1,
            max=20,
            tooltip="n of CFR-n and A-CFR-n",
        )
        self.changed_px = SpinBox(
            label="Stop at (px)",
            value=refinement.stop_changed_px,
            min=0,
            max=10_000,
            tooltip="A-CFR stops when a step changed at most so many pixels",
        )
        self.threshold = FloatSlider(
            label="Threshold",
            value=preferences.threshold,
            min=0.05,
            max=0.95,
            step=0.01,
            tooltip="Moves the selected object's outline; the network is not run",
        )
        self.rule = ComboBox(
            label="Overlap",
            choices=list(_RULES.items()),
            value=preferences.rule,
            tooltip="Who gets a pixel of two objects; locked ones always keep theirs",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(
            form(self.kind, self.steps, self.changed_px, self.threshold, self.rule)
        )
        self._enable()

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""

        def refine() -> None:
            self._enable()
            controller = current()
            if controller is not None:
                controller.set_refinement(self.refinement)

        for widget in (self.kind, self.steps, self.changed_px):
            widget.changed.connect(refine)
        self.threshold.changed.connect(
            lambda v: on_current(current, lambda c: c.set_threshold(float(v)))()
        )
        self.rule.changed.connect(
            lambda v: on_current(current, lambda c: c.set_rule(v))()
        )

    @property
    def refinement(self) -> Refinement:
        """The refinement chosen."""
        kind = self.kind.value
        steps = 0 if kind == "standard" else int(self.steps.value)
        return Refinement(kind, steps, int(self.changed_px.value))

    def show_view(self, view: DockView) -> None:
        """Show the state; what is shown already is not touched."""
        if abs(self.threshold.value - view.threshold) > 1e-6:
            with self.threshold.changed.blocked():
                self.threshold.value = view.threshold
        shown: list[tuple[Any, Any]] = [(self.rule, view.rule)]
        if self.refinement != view.refinement:
            found = view.refinement
            shown += [(self.kind, found.kind), (self.changed_px, found.stop_changed_px)]
            if found.extra_steps:
                shown.append((self.steps, found.extra_steps))
        for widget, value in shown:
            with widget.changed.blocked():
                widget.value = value
        self._enable()

    def _enable(self) -> None:
        self.steps.enabled = self.kind.value != "standard"
        self.changed_px.enabled = self.kind.value == "a-cfr"


class StatusPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """What is going on, and the keys."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.cancel = button("Cancel", "Take the pending click back (Esc)")
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.timing = QLabel()
        self.timing.setToolTip("Device, time and refinement steps of the last click")
        self.keys = QLabel(
            " · ".join(f"<b>{shown_key(keys, a.name)}</b> {a.text}" for a in ACTIONS)
            + " · <b>right-click</b> other polarity"
        )
        self.keys.setWordWrap(True)
        self.keys.setStyleSheet("font-size: 11px; color: #9aa0a8;")
        busy = QHBoxLayout()
        busy.addWidget(self.bar, stretch=1)
        busy.addWidget(self.cancel)
        self.busy = QWidget()
        self.busy.setLayout(busy)
        busy.setContentsMargins(0, 0, 0, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for widget in (self.busy, self.text, self.timing, self.keys):
            column.addWidget(widget)

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        self.cancel.clicked.connect(on_current(current, lambda c: c.cancel_pending()))

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        policy = self.busy.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.busy.setSizePolicy(policy)
        self.busy.setVisible(view.loading or view.pending > 0)
        self.cancel.setEnabled(view.pending > 0)
        self.text.setText(view.status)
        self.timing.setText(view.timing)
