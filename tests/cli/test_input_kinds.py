"""Sixty kinds of files through every command: object, place and units are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from input_kinds import CENTRE, KINDS, SHAPE, Kind, disc
from scipy import ndimage
from session_cases import flood_segmenter
from typer.testing import CliRunner

from cfrseg_training.loop.labelled import DataRequest, read_data
from napari_cfrseg.annotation import events as ev
from napari_cfrseg.cli import app
from napari_cfrseg.cli.options import open_arranged
from napari_cfrseg.errors import DatasetError, ImageError
from napari_cfrseg.evaluation.datasets.choice import draw_objects
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_objects import evaluate_objects
from napari_cfrseg.io.axes import select_from
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.plane_image import open_plane
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.replay_session import ReplayTask, replay_session
from napari_cfrseg.session.session_writer import SessionWriter

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
PLANES = [kind for kind in KINDS if not kind.leading]
STACKS = [kind for kind in KINDS if len(kind.leading) == 1]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def bright(pixels: np.ndarray, *, rgb: bool | None = None) -> np.ndarray:
    """Return what the network sees as bright in any channel."""
    from napari_cfrseg.geometry.windows import Window

    plane = open_plane(pixels, rgb=rgb)
    side = max(SHAPE)
    seen = plane.crop(Window(0, 0, side, side))[:, : SHAPE[0], : SHAPE[1]]
    return seen.max(axis=0) > 0.3


def test_there_are_sixty_kinds():
    assert len(KINDS) >= 60
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@every_kind
def test_is_opened_with_its_axes_and_units(tmp_path, kind: Kind):
    opened = open_arranged(kind.make(tmp_path), None, None, None)
    assert "".join(opened.axes) == kind.arranged.replace("q", opened.axes[0])
    assert opened.is_rgb == (kind.is_rgb or "palette" in kind.name)
    assert opened.spacing == kind.voxel
    middle = tuple(n // 2 for n in kind.leading)
    pixels = opened.array[(*middle, slice(None), slice(None))]
    assert iou(bright(pixels, rgb=opened.is_rgb), disc()) > 0.9


def test_axes_colours_and_channels_are_named_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "a.npy"
    array = np.zeros((7, *SHAPE), np.uint8)
    array[5] = disc() * 200
    np.save(path, array)
    assert open_arranged(path, "ZYX", None, None).axes == ("z", "y", "x")
    few = open_arranged(path, "CYX", None, None)
    np.testing.assert_array_equal(few.read(), np.moveaxis(array[:3], 0, -1))
    assert "7 channels: the first 3 are used" in capsys.readouterr().err
    chosen = open_arranged(path, "CYX", None, "5")
    np.testing.assert_array_equal(chosen.read(), array[5])
    three = open_arranged(path, "CYX", True, "0,1,5")
    assert (three.axes, three.is_rgb) == (("y", "x", "c"), True)
    assert open_arranged(path, "SYX", None, "0,1,5").is_rgb
    for axes, rgb, channels in (
        ("YX", None, None),
        ("CYX", True, "0,1"),
        ("ZYX", None, "3"),
        ("CYX", None, "9"),
        ("CYX", None, "0,1,2,3,4"),
        ("CYX", None, "1,1"),
    ):
        with pytest.raises(ImageError, match=r"a\.npy"):
            open_arranged(path, axes, rgb, channels)


def misnamed_folder(folder: Path) -> Path:
    """Channels that the file calls planes, with labels of one plane."""
    kind = next(k for k in KINDS if k.name == "imagej_c2.tif")
    (folder / "images").mkdir(parents=True)
    array = kind.array()
    tifffile.imwrite(
        folder / "images" / "a.tif", array, imagej=True, metadata={"axes": "ZYX"}
    )
    (folder / "labels").mkdir()
    tifffile.imwrite(folder / "labels" / "a.tif", disc().astype(np.uint8))
    return folder


def test_axes_of_labelled_folders_are_named(tmp_path):
    folder = misnamed_folder(tmp_path / "set")
    with pytest.raises(DatasetError, match="no usable labelled image"):
        read_data(DataRequest(folders=(folder,)))
    data = read_data(DataRequest(folders=(folder,), axes="CYX"))
    assert data.planes[0].image.shape == (*SHAPE, 2)
    with pytest.raises(DatasetError, match="is left out"):
        draw_objects(folder)
    (found,) = draw_objects(folder, axes="CYX")
    assert found.source.read_plane("a", None).image.shape == (*SHAPE, 2)


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_axes_of_labelled_folders_are_an_option(tmp_path, command):
    folder, out = misnamed_folder(tmp_path / "set"), tmp_path / "a.safetensors"
    said = [command, str(folder), "--output", str(out), "--axes", "YX"]
    result = CliRunner().invoke(app, said)
    assert result.exit_code == 1
    assert "axes 'YX' do not fit an image of 2 × 48 × 64" in result.output


class Bright:
    """Returns the bright pixels that hang together with the click."""

    def set_image(self, image):
        self.parts, _ = ndimage.label(bright(image))

    def predict(self, clicks, previous):
        return self.parts == self.parts[clicks[0].pixel]


def labelled_folder(folder: Path, kind: Kind) -> Path:
    kind.make(folder / "images")
    name = kind.name.rsplit(".", 1)[0].removesuffix(".ome")
    labels = np.broadcast_to(disc().astype(np.uint8) * 7, (*kind.leading, *SHAPE))
    (folder / "labels").mkdir()
    tifffile.imwrite(
        folder / "labels" / f"{name}.tif", labels, photometric="minisblack"
    )
    return folder


@every_kind
def test_is_evaluated(tmp_path, kind: Kind):
    source = LabelFolder(labelled_folder(tmp_path, kind), "set")
    if len(kind.leading) > 1:
        with pytest.raises(DatasetError, match=r"expected \(Y, X\) or \(Z, Y, X\)"):
            list(source.objects())
        return
    objects = list(source.objects())
    assert {item.plane for item in objects} == (
        set(range(kind.leading[0])) if kind.leading else {None}
    )
    for row in evaluate_objects(Bright, objects[:2]):
        assert row.ious[0] > 0.9


@every_kind
def test_is_trained_on(tmp_path, kind: Kind):
    data = read_data(DataRequest(folders=(labelled_folder(tmp_path, kind),)))
    assert not data.broken
    assert len(data.planes) == np.prod(kind.leading, dtype=int)
    sample = data.planes[-1].sample()
    assert sample.image.shape == (*SHAPE, 3)
    assert iou(sample.image.max(axis=-1) > 76, disc()) > 0.9
    np.testing.assert_array_equal(data.planes[-1].labels, disc() * 7)


def record(path: Path) -> tuple[Path, int]:
    """Click the disc in the image as napari shows it, the last channel chosen."""
    opened = open_image(path)
    select: tuple[tuple[int, int], ...] = ()
    if "c" in opened.axes and not opened.is_rgb:
        axis = opened.axes.index("c")
        select = ((axis, opened.shape[axis] - 1),)
    array = select_from(opened.array, select)
    rgb = opened.is_rgb and opened.has_channels
    reference = reference_of(
        array, path=path, folder=path.parent, rgb=rgb, select=select
    )
    plane = tuple(n // 2 for n in reference.leading)
    events = (
        ev.ObjectCreated(1),
        ev.ClickAdded(1, plane, tuple(map(float, CENTRE)), True, 1),
    )
    session = path.parent / "a.cfrseg.json"
    content = SessionContent(reference, events=events)
    SessionWriter.create(session, content).close()
    flat = np.ravel_multi_index(plane, reference.leading) if plane else 0
    return session, int(flat)


@every_kind
@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "another well"])
def test_is_replayed(tmp_path, kind: Kind, elsewhere: bool):
    session, plane = record(kind.make(tmp_path / "well"))
    weights = tmp_path / "none.safetensors"
    weights.touch()
    other = (
        replace(kind, name=f"other_{kind.name}").make(tmp_path) if elsewhere else None
    )
    task = ReplayTask(session, tmp_path / "out", "a", image=other, weights=weights)
    result = replay_session(task, lambda *_: flood_segmenter())
    assert result.status == "done", result.reason
    found = open_image(Path(result.labels)).read()
    labels = found.reshape(-1, *SHAPE)
    assert labels.any(axis=(1, 2)).sum() == 1
    assert iou(labels.any(axis=0), disc()) > 0.9
    assert labels[plane].any()


def run(*arguments: object) -> dict:
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--device", "cpu", "--json"]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", KINDS[::12], ids=lambda kind: kind.name)
def test_a_few_kinds_are_segmented(tmp_path, kind: Kind):
    check_segmented(tmp_path, kind)


@pytest.mark.slow
@every_kind
def test_is_segmented(tmp_path, kind: Kind):
    check_segmented(tmp_path, kind)


def check_segmented(folder: Path, kind: Kind) -> None:
    path, target = kind.make(folder), folder / "mask.tif"
    plane = ["--plane", 1] if kind.leading else []
    y, x = CENTRE
    run("segment", path, "-c", f"{y},{x},+", "-o", target, *plane)
    assert iou(tifffile.imread(target) > 0, disc()) > 0.6
    if kind.voxel is not None:
        assert open_image(target).spacing == kind.voxel[1:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", STACKS, ids=lambda kind: kind.name)
def test_is_propagated(tmp_path, kind: Kind):
    path, target = kind.make(tmp_path), tmp_path / "mask.tif"
    y, x = CENTRE
    found = run("propagate", path, "-c", f"0,{y},{x},+", "-o", target)
    labels = tifffile.imread(target)
    assert labels.shape == (*kind.leading, *SHAPE)
    assert len(found["planes"]) == kind.leading[0]
    assert all(iou(plane > 0, disc()) > 0.6 for plane in labels)
    if kind.voxel is not None:
        assert open_image(target).spacing == kind.voxel


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANES, ids=lambda kind: kind.name)
def test_a_plane_is_no_stack(tmp_path, kind: Kind):
    path = kind.make(tmp_path)
    result = CliRunner().invoke(
        app, ["propagate", str(path), "-c", "0,5,5,+", "-o", str(tmp_path / "o.tif")]
    )
    assert result.exit_code == 1
    assert "expected one axis before y, x" in result.stderr
