"""Small parts that every panel is made of: buttons, rows, forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_cfrseg.gui.controller import Controller

    Current = Callable[[], Controller | None]


def form(*widgets: Any) -> QFormLayout:
    """Return labelled rows of magicgui widgets."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    for widget in widgets:
        policy = QSizePolicy.Policy
        widget.native.setSizePolicy(policy.Expanding, policy.Fixed)
        layout.addRow(widget.label, widget.native)
        if widget.tooltip:
            layout.labelForField(widget.native).setToolTip(widget.tooltip)
    return layout


def button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that leaves the keys to the canvas."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setCheckable(checkable)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return made


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def on_current(
    current: Current, action: Callable[[Controller], None]
) -> Callable[..., None]:
    """Return what acts on the controller there is then; it ignores what Qt sends."""

    def run(*_: Any) -> None:
        controller = current()
        if controller is not None:
            action(controller)

    return run
