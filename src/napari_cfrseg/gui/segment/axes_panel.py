"""The dock's row that says what the image's axes are, and which channels are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QLabel, QMenu, QWidget

from napari_cfrseg.gui.dock_widget import button, row
from napari_cfrseg.gui.segment.dock_view import Remedy
from napari_cfrseg.gui.segment.layer_axes import (
    METADATA_AXES,
    METADATA_CHANNELS,
    chosen_channels,
    described,
    meanings_of,
    sides_of,
)
from napari_cfrseg.gui.segment.working_image import WorkingImage, channel_axis
from napari_cfrseg.io.named_axes import MOST_CHANNELS

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current
    from napari_cfrseg.gui.segment.controller import Controller


class AxesPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Hidden where there is nothing to say: one plane, of one channel or of colours.

    ``current`` returns the controller whose image it is about. ``afresh`` begins again
    on a layer: called with it, with why the objects there are set aside, and with what
    its metadata are to say. ``named`` gets a controller whose axes got other names.
    """

    def __init__(
        self,
        current: Current,
        afresh: Callable[..., None],
        named: Callable[[Controller], None],
    ) -> None:
        super().__init__()
        self._current, self._afresh, self._named = current, afresh, named
        self._meanings: list[tuple[str, ...]] = []
        self._image: WorkingImage | None = None
        self._shown: object = None
        self.axes = QComboBox()
        self.axes.setToolTip("What the axes beside y and x are")
        self.axes.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        said = f"Which channels the network sees together, up to {MOST_CHANNELS}"
        self.channels = button("", said)
        self.menu = QMenu(self.channels)
        self.channels.setMenu(self.menu)
        self._label = QLabel("Axes")
        layout = row(self._label, self.axes, self.channels)
        layout.setStretch(1, 1)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setLayout(layout)
        self.axes.activated.connect(self._on_axes)
        self.hide()

    def show_image(self, image: WorkingImage | None) -> None:
        """Show the axes and channels of an image; nothing without one."""
        now = None if image is None else (image, image.names, image.channels)
        if now == self._shown:
            return
        self._image, self._shown = image, now
        self._meanings, count = [], 0
        self.axes.clear()
        if image is not None:
            sides = sides_of(image.layer)[: image.layer.ndim]
            self._meanings = meanings_of(image.names, sides, image.is_rgb)
            count = self._list_channels(image)
            if self._meanings:
                self.axes.addItems([described(n, sides) for n in self._meanings])
                self.axes.setCurrentIndex(self._meanings.index(image.names))
        self._label.setText("Axes" if self._meanings else "Channels")
        self.axes.setVisible(bool(self._meanings))
        self.channels.setVisible(count > 1)
        self.setVisible(bool(self._meanings) or count > 1)

    def _list_channels(self, image: WorkingImage) -> int:
        """List an image's channels; return how many there are."""
        axis, named = image.channel_axis, [layer.name for layer in image.layers]
        if axis is not None:
            named = [f"channel {i}" for i in range(sides_of(image.layer)[axis])]
        self.menu.clear()
        for index, name in enumerate(named):
            action = self.menu.addAction(name)
            action.setCheckable(True)
            action.setChecked(index in image.channels)
            action.triggered.connect(self._on_channels)
        self.channels.setText(f"{len(image.channels)} of {len(named)}")
        return len(named)

    def _on_axes(self, index: int) -> None:
        """Take the axes for what a person says; channels need other clicks."""
        names, found = self._meanings[index], self._current()
        self._show_again()
        if found is None or names == found.image.names:
            return
        layer = found.image.layer
        if channel_axis(layer, names) != found.image.channel_axis:
            self._change(found, {METADATA_AXES: names, METADATA_CHANNELS: ()})
            return
        layer.metadata[METADATA_AXES] = names
        found.stack.name_axes(names)
        self._named(found)

    def _on_channels(self) -> None:
        """Use the channels that a person ticked."""
        actions, found = self.menu.actions(), self._current()
        chosen = tuple(i for i, action in enumerate(actions) if action.isChecked())
        self._show_again()
        if found is None:
            return
        if 0 < len(chosen) <= MOST_CHANNELS:
            self._change(found, {METADATA_CHANNELS: chosen})
        else:
            found.say(f"Choose at least one channel and at most {MOST_CHANNELS}.")

    def _show_again(self) -> None:
        """Show what holds until the change is made: it may be refused."""
        self._shown = None
        self.show_image(self._image)

    def _change(self, found: Controller, said: dict[str, Any]) -> None:
        """Begin again with other axes or channels; objects are not given up unasked."""
        layer = found.image.layer
        if found.view.is_untouched:
            self._afresh(layer, **said)
            return
        why = f"Other axes or channels of “{layer.name}” were chosen:"
        remedy = Remedy(
            "Set objects aside, begin again", lambda: self._afresh(layer, why, **said)
        )
        text = "The objects here were made with these axes and channels."
        found.say(text, remedy=remedy)

    def follow_visible(self, found: Controller) -> None:
        """Use the channels that are visible now, unless something was done."""
        image = found.image
        if found.view.is_untouched and len(image.layers) > 1:
            now = chosen_channels(image.layer, image.layers, image.channel_axis)
            if now != image.channels:
                self._afresh(image.layer)
