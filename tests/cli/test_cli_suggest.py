"""``cfrseg suggest``: a session's objects serve its own image and others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.cli import app
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import model_reference, reference_of
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import methods_paragraph
from napari_cfrseg.session.session_writer import SessionWriter

PLACES = [(30 + 50 * y, 32 + 50 * x) for y in range(3) for x in range(4)]


def _discs(seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).normal(60, 8, (170, 220))
    rows, columns = np.indices(image.shape)
    for y, x in PLACES:
        image += 100 / (1 + np.exp(np.hypot(rows - y, columns - x) - 12))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three discs are finished; a second image lies beside the first."""
    folder = tmp_path_factory.mktemp("suggest")
    image = _discs(1)
    tifffile.imwrite(folder / "day1.tif", image)
    tifffile.imwrite(folder / "day2.tif", _discs(2))
    reference = reference_of(image, path=folder / "day1.tif", folder=folder)
    content = SessionContent(
        reference, model_reference("default"), SessionSettings(device="cpu")
    )
    writer = SessionWriter.create(folder / "day1.cfrseg.json", content)
    segmenter = Segmenter.load("default", device="cpu")
    made = RecordedAnnotator(lambda _: image, image.shape, segmenter)
    made.writer = writer
    for number, (y, x) in enumerate(PLACES[:3], 1):
        click = ev.ClickAdded(number, (), (float(y), float(x)), True, number)
        made.apply(ev.ObjectCreated(number), click)
    writer.save(made.snapshot(writer.event_count))
    writer.close()
    return writer.path


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["suggest", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output if code else result.stdout


def test_own_image_keeps_its_objects_and_the_result_opens_and_replays(
    session: Path, tmp_path: Path
):
    printed = _run(session, "--output", tmp_path, "--above", "0.3", "--json")
    count = json.loads(printed)["suggested"]
    assert count >= 6
    labels = tifffile.imread(tmp_path / "day1.suggested.tif")
    assert labels.max() == 3 + count
    result = Session.open(tmp_path / "day1.suggested.cfrseg.json")
    objects = result.objects()
    assert [o.is_as_suggested() for o in objects] == [False] * 3 + [True] * count
    assert result.content.identity != Session.open(session).content.identity
    assert (np.asarray(result.apply()) == labels).all()  # it finds the image
    said = methods_paragraph(result.content, objects)
    assert f"{count} were suggested" in said
    assert f"{count} of them without correction" in said
    assert "exists" in _run(session, "--output", tmp_path, code=1)


def test_the_next_image_gets_suggestions_only(session: Path, tmp_path: Path):
    other = session.with_name("day2.tif")
    _run(session, "--image", other, "--output", tmp_path, "--above", "0.3")
    labels = tifffile.imread(tmp_path / "day2.suggested.tif")
    hit = [labels[place] for place in PLACES if labels[place]]
    assert len(set(hit)) == len(hit) >= 8
    result = Session.open(tmp_path / "day2.suggested.cfrseg.json")
    assert all(o.is_as_suggested() for o in result.objects())
    assert (np.asarray(result.open_image()) == _discs(2)).all()


def test_a_session_of_a_model_that_is_gone_takes_another(session: Path, tmp_path: Path):
    sha256 = model_reference("default").sha256 or ""
    old = session.with_name("old.cfrseg.json")
    old.write_text(session.read_text().replace(sha256, "0" * 64))
    said = _run(old, "--output", tmp_path, code=1)
    assert "choose another model with --model" in said
    _run(old, "--output", tmp_path, "--model", "default")
    made = Session.open(tmp_path / "old.suggested.cfrseg.json")
    assert made.content.model == model_reference("default")


def test_one_of_several_images_that_fails_stops_no_other(session: Path, tmp_path: Path):
    for name in ("plate.a1", "plate.a2"):
        tifffile.imwrite(tmp_path / f"{name}.tif", _discs(2))
    (tmp_path / "plate.a0.tif").write_bytes(b"no image")
    images = ("--image", tmp_path / "plate.*.tif")
    printed = _run(session, *images, "--output", tmp_path / "out", "--json", code=1)
    assert f"failed: {tmp_path / 'plate.a0.tif'}: " in printed
    assert "1 of 3 failed" in printed
    assert {p.name for p in (tmp_path / "out").glob("*.tif")} == {
        "plate.a1.suggested.tif",
        "plate.a2.suggested.tif",
    }
    (tmp_path / "other").mkdir()
    tifffile.imwrite(tmp_path / "other" / "plate.a1.tif", _discs(2))
    twice = ("--image", tmp_path / "*" / "plate.a1.tif")
    said = _run(session, *images, *twice, "--output", tmp_path / "out", code=2)
    assert "overwrite each other" in said
