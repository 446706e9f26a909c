"""Sample images, the sample session and the demo that the manifest points at."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from importlib.resources import as_file, files
from itertools import count
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication

from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.gui.preferences import PLUGIN
from napari_cfrseg.io.images import open_image
from napari_cfrseg.samples import Sample, load_demo, load_sample

if TYPE_CHECKING:
    from napari_cfrseg.gui.session.session_layers import LayerData


def layer_of(sample: Sample) -> LayerData:
    """Return a micrograph as an Image layer, in µm where its pixel size is known."""
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
    return sample.image, kwargs, "image"


def sample_layers(name: str) -> list[LayerData]:
    """Return a bundled micrograph for napari's menu of samples."""
    return [layer_of(load_sample(name))]


glioblastoma_phase = partial(sample_layers, "glioblastoma_phase")
powder_sem = partial(sample_layers, "powder_sem")
superalloy_sem = partial(sample_layers, "superalloy_sem")
axon_sem = partial(sample_layers, "axon_sem")
ganglioneuroblastoma_fluo = partial(sample_layers, "ganglioneuroblastoma_fluo")
breast_cancer_he = partial(sample_layers, "breast_cancer_he")


def sample_session() -> list[LayerData]:
    """Open the demo's clicks on its micrograph as a session."""
    from napari_cfrseg.annotation import events as ev
    from napari_cfrseg.gui.session.session_layers import read_session
    from napari_cfrseg.session.format import SUFFIX, SessionContent
    from napari_cfrseg.session.references import model_reference, reference_of
    from napari_cfrseg.session.session_writer import SessionWriter
    from napari_cfrseg.session.unsaved_sessions import sessions_folder

    demo = load_demo()
    folder = sessions_folder()
    path = folder / f"sample-{demo.sample}{SUFFIX}"
    if not path.exists():
        events: list[ev.Event] = []
        numbers = count(1)
        for number, clicks in enumerate(demo.objects, start=1):
            events.append(ev.ObjectCreated(number))
            events += [
                ev.ClickAdded(number, (), c.yx, c.is_positive, next(numbers))
                for c in clicks
            ]
        model = None
        with suppress(CfrSegError, OSError):
            model = model_reference("default")
        place = files("napari_cfrseg") / "sample_data" / f"{demo.sample}.image.tif"
        with as_file(place) as image_path:
            opened = open_image(image_path)
            reference = reference_of(
                opened.array, path=image_path, folder=folder, rgb=opened.has_channels
            )
        folder.mkdir(parents=True, exist_ok=True)
        content = SessionContent(reference, model, events=tuple(events))
        SessionWriter.create(path, content).close()
    return read_session(str(path))


DOCK = "Segment with clicks"
#: widest and highest the demo's window is made, and its largest share of the screen
LARGEST_PX = (1600, 1000)
SCREEN_SHARE = 0.92
#: the canvas gets its last size a moment after the dock; then the image is fitted
SETTLED_MS = 300


def open_demo(sample: Sample) -> None:
    """Show a sample's image, open the dock and run until the user closes the window."""
    viewer = napari.Viewer()
    viewer.window.resize(*window_size())
    data, kwargs, _ = layer_of(sample)
    viewer.add_image(data, **kwargs)
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
