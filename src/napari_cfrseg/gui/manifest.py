"""What the manifest points at besides the dock: the sample images."""

from __future__ import annotations

from typing import Any

import napari
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication

from napari_cfrseg.samples import Sample

LayerData = tuple[Any, dict[str, Any], str]


def sample_layers(name: str) -> list[LayerData]:
    """Return a bundled micrograph as an Image layer, with its scale and credits."""
    from napari_cfrseg.samples import load_sample

    sample = load_sample(name)
    metadata = {
        "licence": sample.licence,
        "attribution": sample.attribution,
        "citation": sample.citation,
        "source": sample.source,
    }
    kwargs: dict[str, Any] = {
        "name": sample.title,
        "metadata": metadata,
        "rgb": sample.image.ndim == 3,
    }
    if sample.pixel_size_um is not None:
        kwargs["scale"] = (sample.pixel_size_um,) * 2
        kwargs["units"] = ("um", "um")
    return [(sample.image, kwargs, "image")]


def glioblastoma_phase() -> list[LayerData]:
    """Glioblastoma cells, phase contrast."""
    return sample_layers("glioblastoma_phase")


def powder_sem() -> list[LayerData]:
    """Gas-atomised metal powder, SEM."""
    return sample_layers("powder_sem")


def superalloy_sem() -> list[LayerData]:
    """Precipitates in a nickel superalloy, SEM."""
    return sample_layers("superalloy_sem")


def axon_sem() -> list[LayerData]:
    """Myelinated axons of a rat's spinal cord, SEM."""
    return sample_layers("axon_sem")


def ganglioneuroblastoma_fluo() -> list[LayerData]:
    """Nuclei of a ganglioneuroblastoma section, fluorescence."""
    return sample_layers("ganglioneuroblastoma_fluo")


def breast_cancer_he() -> list[LayerData]:
    """Nuclei of breast cancer tissue, H&E."""
    return sample_layers("breast_cancer_he")


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
