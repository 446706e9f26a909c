"""``cfrseg demo``: the shortest way to see it work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cfrseg.cli.options import DeviceOption, ModelOption
from napari_cfrseg.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_cfrseg.samples import Sample

EXAMPLES = """\b
Examples:
  cfrseg demo
  cfrseg demo --headless out
"""


def demo(
    headless: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            file_okay=False,
            help="Open no window: apply the bundled clicks and write to this folder.",
        ),
    ] = None,
    model: ModelOption = "default",
    device: DeviceOption = "auto",
) -> None:
    """Open napari with a bundled micrograph, ready to click.

    With --headless OUT, apply a short bundled list of clicks instead, write
    OUT/labels.tif and OUT/overlay.png, and print each object's IoU against the
    bundled annotation.
    """
    if headless is None:
        _open_window()
    else:
        _apply_clicks(headless, model, device)


def _open_window() -> None:
    from napari_cfrseg.cli.display import display_problem

    problem = display_problem()
    if problem is not None:
        msg = f"{problem}; 'cfrseg demo --headless OUT' works without a window"
        raise DeviceError(msg)
    from napari_cfrseg.gui.launch import open_demo
    from napari_cfrseg.samples import load_demo, load_sample

    open_demo(load_sample(load_demo().sample))


def _apply_clicks(out: Path, model: str, device: str) -> None:
    import numpy as np

    from napari_cfrseg.cli.files import write_labels, write_picture
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.overlay import draw_overlay
    from napari_cfrseg.samples import load_demo, load_sample

    bundled = load_demo()
    sample = load_sample(bundled.sample)
    segmenter = Segmenter.load(model, device=device)
    segmenter.set_image(sample.image)
    labels = np.zeros(sample.labels.shape, dtype=np.uint16)
    for number, clicks in enumerate(bundled.objects, start=1):
        mask = segmenter.predict(clicks).mask
        labels[mask & (labels == 0)] = number  # earlier objects keep their pixels
        annotated = int(sample.labels[clicks[0].pixel])
        typer.echo(
            f"object {number}: {len(clicks)} click{'s' if len(clicks) > 1 else ''}, "
            f"{np.count_nonzero(labels == number)} px, "
            f"IoU {_iou(labels == number, sample, annotated):.3f}"
        )
    write_labels(out / "labels.tif", labels)
    write_picture(
        out / "overlay.png", draw_overlay(sample.image, labels, bundled.objects)
    )
    typer.echo(f"{sample.title}: wrote {out / 'labels.tif'} and {out / 'overlay.png'}")
    typer.echo(f"image: {sample.attribution} ({sample.licence})")


def _iou(mask: NDArray[np.bool_], sample: Sample, annotated: int) -> float:
    truth = sample.labels == annotated
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 1.0
