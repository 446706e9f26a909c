"""Open napari on a bundled micrograph with the dock beside it."""

from __future__ import annotations

import napari
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication

from napari_cfrseg.samples import Sample

PLUGIN, DOCK = "napari-cfrseg", "CFR-Seg: segment with clicks"
#: widest and highest the demo's window is made, and its largest share of the screen
LARGEST_PX = (1600, 1000)
SCREEN_SHARE = 0.92
#: the canvas gets its last size a moment after the dock; then the image is fitted
SETTLED_MS = 300


def open_demo(sample: Sample) -> None:
    """Show a sample, open the dock and hand over to the user until they close it.

    Parameters
    ----------
    sample
        The micrograph to click on; its annotation is not shown.
    """
    viewer = napari.Viewer()
    viewer.window.resize(*window_size())
    show_sample(viewer, sample)
    viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    QApplication.processEvents()
    viewer.reset_view()
    QTimer.singleShot(SETTLED_MS, viewer.reset_view)
    napari.run()


def window_size() -> tuple[int, int]:
    """Width and height for a window that leaves room on the screen it is on."""
    screen = QGuiApplication.primaryScreen()
    if screen is None:
        return LARGEST_PX
    free = screen.availableGeometry()
    width, height = (int(SCREEN_SHARE * n) for n in (free.width(), free.height()))
    return min(width, LARGEST_PX[0]), min(height, LARGEST_PX[1])


def show_sample(viewer: napari.Viewer, sample: Sample) -> None:
    """Add a sample's image to a viewer, in µm where its pixel size is known.

    Parameters
    ----------
    viewer
        An open viewer.
    sample
        The micrograph.
    """
    spacing = sample.pixel_size_um
    viewer.add_image(
        sample.image,
        name=sample.name,
        rgb=sample.image.ndim == 3,
        scale=None if spacing is None else (spacing, spacing),
        units=None if spacing is None else ("um", "um"),
        metadata={"attribution": sample.attribution, "licence": sample.licence},
    )
