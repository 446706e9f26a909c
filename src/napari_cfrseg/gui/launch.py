"""Open napari on a bundled micrograph with the dock beside it."""

from __future__ import annotations

import napari

from napari_cfrseg.samples import Sample

PLUGIN, DOCK = "napari-cfrseg", "CFR-Seg: segment with clicks"


def open_demo(sample: Sample) -> None:
    """Show a sample, open the dock and hand over to the user until they close it.

    Parameters
    ----------
    sample
        The micrograph to click on; its annotation is not shown.
    """
    viewer = napari.Viewer()
    show_sample(viewer, sample)
    viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    napari.run()


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
