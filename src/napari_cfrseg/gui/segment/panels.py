"""The dock's groups of controls. Each shows a DockView and calls the controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FloatSlider, SpinBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.preferences import Preferences
from napari_cfrseg.gui.qt.dock_widget import button, form, on_current, row
from napari_cfrseg.gui.segment.click_layer import COLOURS
from napari_cfrseg.gui.segment.dock_state import DockView
from napari_cfrseg.gui.segment.keys import ACTIONS
from napari_cfrseg.gui.segment.object_table import ObjectTable

if TYPE_CHECKING:
    from napari_cfrseg.gui.qt.dock_widget import Current
    from napari_cfrseg.gui.segment.controller import Controller

_REFINEMENTS = {
    "Standard (once)": "standard",
    "CFR-n (fixed)": "cfr",
    "A-CFR-n (until still)": "a-cfr",
}
_RULES = {
    "Keep neighbours' pixels": OverlapRule.KEEP,
    "Overwrite neighbours": OverlapRule.OVERWRITE,
}


def _shown_key(keys: dict[str, str], name: str) -> str:
    return (
        keys[name].replace("Control", "Ctrl").replace("Escape", "Esc").replace("-", "+")
    )


class ObjectPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Polarity, objects, undo."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        key = {action.name: _shown_key(keys, action.name) for action in ACTIONS}
        swap = f"{key['polarity']} swaps; right-click: the other"
        self.positive = button("● Positive", f"Belongs to it. {swap}", checkable=True)
        self.negative = button("✕ Negative", f"Does not. {swap}", checkable=True)
        for is_positive, sign in ((True, self.positive), (False, self.negative)):
            sign.setStyleSheet(
                f"QPushButton:checked {{ background: {COLOURS[is_positive]}; "
                "color: black; font-weight: bold; }"
            )
        group = QButtonGroup(self)
        group.addButton(self.positive)
        group.addButton(self.negative)
        self.table = ObjectTable()
        self.new = button("New", f"Next object ({key['new_object']})")
        self.delete = button("Delete", "Delete the selected object")
        self.reset = button(
            "Reset", f"Take its clicks on this plane away ({key['reset_object']})"
        )
        self.undo = button("Undo", f"Clicks and labels together ({key['undo']})")
        self.redo = button("Redo", f"Clicks and labels together ({key['redo']})")
        self.closer = button("Focus −", f"Look closer ({key['closer']})")
        self.wider = button("Focus +", f"Look wider ({key['wider']})")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row(self.positive, self.negative))
        column.addWidget(self.table, stretch=1)
        column.addLayout(row(self.new, self.delete, self.reset))
        column.addLayout(row(self.undo, self.redo, self.closer, self.wider))

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""

        def does(action: Callable[[Controller], None]) -> Callable[..., None]:
            return on_current(current, action)

        self.positive.clicked.connect(does(lambda c: c.set_polarity(True)))
        self.negative.clicked.connect(does(lambda c: c.set_polarity(False)))
        self.new.clicked.connect(does(lambda c: c.new_object()))
        self.reset.clicked.connect(does(lambda c: c.reset_object()))
        self.undo.clicked.connect(does(lambda c: c.undo()))
        self.redo.clicked.connect(does(lambda c: c.redo()))
        self.closer.clicked.connect(does(lambda c: c.shift_focus(-1)))
        self.wider.clicked.connect(does(lambda c: c.shift_focus(+1)))
        self.delete.clicked.connect(does(lambda c: c.delete_selected()))
        table = self.table

        def with_current(name: str) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                controller = current()
                if controller is not None:
                    getattr(controller, name)(*arguments)

            return call

        table.chosen.connect(with_current("select"))
        table.renamed.connect(with_current("rename"))
        table.classified.connect(with_current("classify"))
        table.recoloured.connect(with_current("recolour"))
        table.locked.connect(with_current("set_locked"))

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        self.positive.setChecked(view.is_positive)
        self.negative.setChecked(not view.is_positive)
        self.table.show_rows(view.objects, view.selected)
        has_object = view.selected is not None
        self.delete.setEnabled(has_object)
        self.reset.setEnabled(has_object)
        self.undo.setEnabled(view.undo_depth > 0 or view.pending > 0)
        self.redo.setEnabled(view.redo_depth > 0)


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
            " · ".join(f"<b>{_shown_key(keys, a.name)}</b> {a.text}" for a in ACTIONS)
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
