"""``cfrseg replay``: the labels of the window, one session or many, whatever fails."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from session_cases import PLACES, pixels, record_with, save_model
from typer.testing import CliRunner

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.cli import app
from napari_cfrseg.engine.adaptation import fingerprint, light_numbers
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.io.atomic import temporary_beside
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import model_reference, reference_of
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_writer import SessionWriter


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay-models")
    save_model(folder, 0, "small")
    save_model(folder, 1, "other")
    return folder


@pytest.fixture(autouse=True)
def installed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(models))


@pytest.fixture(scope="module")
def recorded(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[np.ndarray, Path]:
    folder = tmp_path_factory.mktemp("recorded")
    return record_with(models / "small.safetensors", folder, "cells")


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def lines(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines()]


def wait_for_a_result(folder: Path, timeout_s: float = 200.0) -> bool:
    """Wait until the first labels are there."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if list(folder.glob("*.labels.tif")):
            return True
        time.sleep(0.005)
    return False


def copies(session: Path, folder: Path, count: int) -> list[Path]:
    """Several sessions on one image."""
    folder.mkdir(exist_ok=True)
    image = session.with_name("cells.tif").read_bytes()
    (folder / "cells.tif").write_bytes(image)
    made = [folder / f"s{i:03d}.cfrseg.json" for i in range(count)]
    for path in made:
        path.write_bytes(session.read_bytes())
    return made


def test_replay_gives_the_labels_of_the_window(recorded, tmp_path: Path) -> None:
    labels, session = recorded
    assert len(np.unique(labels)) > 1
    printed, _ = run(session, "--output", tmp_path, "--json")
    (said,) = lines(printed)
    assert (said["status"], said["as_saved"]) == ("done", True)
    assert (said["objects"], said["clicks"]) == (2, 3)
    with tifffile.TiffFile(tmp_path / "cells.labels.tif") as file:
        assert file.is_ome
        assert 'PhysicalSizeX="0.5"' in (file.ome_metadata or "")
        assert np.array_equal(file.asarray(), labels)
    record = json.loads((tmp_path / "cells.replay.json").read_text())
    assert record["model"]["name"] == "small"
    assert record["image"]["is_the_session_s"] is True
    assert record["areas"] == {
        str(i): int((labels == i).sum()) for i in np.unique(labels) if i
    }
    assert {p.name for p in tmp_path.iterdir()} == {
        "cells.labels.tif",
        "cells.replay.json",
    }


def test_python_gives_the_same_labels(recorded) -> None:
    labels, session = recorded
    assert np.array_equal(Session.open(session).apply(), labels)


def test_names_that_are_no_utf_8(recorded, models: Path, tmp_path: Path) -> None:
    """Old disks have them: an image or a model is used all the same."""
    labels, session = recorded
    image, weights = (
        tmp_path / os.fsdecode(name) for name in (b"Z\xe4lle.tif", b"\xe4.safetensors")
    )
    try:
        image.write_bytes(session.with_name("cells.tif").read_bytes())
    except OSError:
        pytest.skip("names are UTF-8 here")
    weights.write_bytes((models / "small.safetensors").read_bytes())
    content = Session.open(session).content
    model = model_reference(weights)
    own = reference_of(tifffile.imread(image), path=image, folder=tmp_path)
    assert (own.path, model.name) == (None, "?")
    path = tmp_path / "own.cfrseg.json"
    SessionWriter.create(path, replace(content, image=own, model=model)).close()
    out = tmp_path / "out"
    run(path, "--image", image, "-o", out, "--export", "coco.json")
    assert np.array_equal(tifffile.imread(out / "own.labels.tif"), labels)
    (said,) = json.loads((out / "own.coco.json").read_text())["images"]
    assert said["file_name"] == "Z?lle.tif"


def test_labels_as_ome_zarr(recorded, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    labels, session = recorded
    run(session, "--output", tmp_path, "--format", "zarr")
    group = zarr.open_group(str(tmp_path / "cells.labels.zarr"), mode="r")
    assert np.array_equal(group["0"][...], labels)
    said = group.attrs["ome"]
    assert said["image-label"]["properties"][0]["name"] == "cell 1"
    assert [a["name"] for a in said["multiscales"][0]["axes"]] == ["y", "x"]
    (dataset,) = said["multiscales"][0]["datasets"]
    size = {"type": "scale", "scale": [0.5, 0.5]}
    assert dataset["coordinateTransformations"] == [size]


def test_exports_of_the_window_are_written_beside_the_labels(
    recorded, tmp_path: Path
) -> None:
    labels, session = recorded
    endings = ("measurements.csv", ".geojson", "csv", "zip", "volumes.csv")
    options = [part for ending in endings for part in ("--export", ending)]
    printed, _ = run(session, "-o", tmp_path, *options, "--json")
    (said,) = lines(printed)
    names = [Path(str(path)).name for path in said["exports"]]
    assert names == [f"cells.{ending.removeprefix('.')}" for ending in endings]
    header, *rows = (tmp_path / names[0]).read_text().splitlines()
    areas = {int(r.split(",")[0]): int(r.split(",")[3]) for r in rows}
    assert header.split(",")[3] == "area_px"
    assert areas == {i: int((labels == i).sum()) for i in np.unique(labels) if i}
    assert "mean" in header
    whole = (tmp_path / "cells.volumes.csv").read_text().splitlines()
    at = whole[0].split(",").index("voxels")
    voxels = {int(r.split(",")[0]): int(r.split(",")[at]) for r in whole[1:]}
    assert voxels == areas
    assert len(json.loads((tmp_path / names[1]).read_text())["features"]) == len(areas)
    # what is missing is made again, and only then
    for path, status in ((None, "kept"), (tmp_path / "cells.zip", "done")):
        if path is not None:
            path.unlink()
        printed, _ = run(session, "-o", tmp_path, *options, "--only-changed", "--json")
        assert lines(printed)[0]["status"] == status
    assert (tmp_path / "cells.zip").exists()
    result = CliRunner().invoke(app, ["replay", str(session), "--export", "xml"])
    assert (result.exit_code, "none of measurements.csv" in result.output) == (2, True)


def test_a_table_that_no_replay_wrote_is_not_replaced(recorded, tmp_path: Path) -> None:
    _, session = recorded
    (tmp_path / "cells.csv").write_text("mine")
    options = ("-o", tmp_path, "--export", "csv")
    _, errors = run(session, *options, code=1)
    assert "no replay wrote it" in errors
    assert (tmp_path / "cells.csv").read_text() == "mine"
    assert not (tmp_path / "cells.labels.tif").exists()
    (tmp_path / "cells.csv").unlink()
    for _ in range(2):
        run(session, *options)


def test_another_image_is_measured_by_its_own_pixel_size(
    recorded, tmp_path: Path
) -> None:
    _, session = recorded
    with tifffile.TiffWriter(tmp_path / "fine.ome.tif") as file:
        sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
        units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        file.write(pixels(), metadata={"axes": "YX", **sizes, **units})
    image = ("--image", tmp_path / "fine.ome.tif")
    run(session, *image, "-o", tmp_path, "--export", "measurements.csv")
    table = (tmp_path / "cells.measurements.csv").read_text().splitlines()
    first = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    (unit,) = [name for name in first if name.startswith("area_") and name != "area_px"]
    assert float(first[unit]) == pytest.approx(0.01 * int(first["area_px"]))
    with tifffile.TiffFile(tmp_path / "cells.labels.tif") as file:
        assert 'PhysicalSizeX="0.1"' in (file.ome_metadata or "")


def test_a_failing_session_stops_nobody_and_is_listed(recorded, tmp_path: Path) -> None:
    labels, session = recorded
    good = copies(session, tmp_path / "in", 2)
    bad = tmp_path / "in" / "bad.cfrseg.json"
    bad.write_text("{")
    lost = tmp_path / "in" / "lost.cfrseg.json"
    lost.write_text(session.read_text().replace('"cells.tif"', '"gone.tif"'))
    out = tmp_path / "out"
    arguments = (good[0], bad, lost, good[1], "-o", out, "--json")
    printed, errors = run(*arguments, code=1)
    assert [r["status"] for r in lines(printed)] == ["done", "failed", "failed", "done"]
    assert f"failed: {bad}" in errors
    assert "gone.tif is not there" in errors
    assert "2 of 4 failed" in errors
    for path in good:
        name = path.name.removesuffix(".cfrseg.json")
        assert np.array_equal(tifffile.imread(out / f"{name}.labels.tif"), labels)
    assert not list(out.glob("bad*"))
    assert not list(out.glob("lost*"))


def test_only_changed_keeps_what_is_still_true(recorded, tmp_path: Path) -> None:
    _, session = recorded
    made = copies(session, tmp_path / "in", 2)
    out = tmp_path / "out"
    run(made[0], "-o", out)
    before = (out / "s000.labels.tif").stat().st_mtime_ns
    arguments = (*made, "-o", out, "--only-changed", "--json")
    first, _ = run(*arguments)
    assert [r["status"] for r in lines(first)] == ["kept", "done"]
    assert (out / "s000.labels.tif").stat().st_mtime_ns == before
    text = made[1].read_text()
    made[1].write_text(text.replace('"yx": [28.0, 12.0]', '"yx": [27.0, 12.0]'))
    (out / "s000.labels.tif").unlink()
    second, _ = run(*arguments)
    assert [r["status"] for r in lines(second)] == ["done", "done"]
    third, _ = run(*arguments)
    assert [r["status"] for r in lines(third)] == ["kept", "kept"]
    other, _ = run(*arguments, "--model", "other")
    assert [r["status"] for r in lines(other)] == ["done", "done"]


def test_labels_whose_record_could_not_be_written_are_made_again(
    recorded, tmp_path: Path
) -> None:
    """The record of earlier labels must not speak for those of another model."""
    (printed, _) = run(recorded[1], "-o", tmp_path, "--json")
    record, labels = tmp_path / "cells.replay.json", Path(lines(printed)[0]["labels"])
    own = tifffile.imread(labels)
    temporary_beside(record).mkdir()  # as on a full disk
    other = ("--model", "other", "-o", tmp_path)
    assert f"{record} was not written" in run(recorded[1], *other, code=1)[1]
    assert not np.array_equal(tifffile.imread(labels), own)
    temporary_beside(record).rmdir()
    (printed, _) = run(recorded[1], "-o", tmp_path, "--json", "--only-changed")
    assert lines(printed)[0]["status"] == "done"
    assert np.array_equal(tifffile.imread(labels), own)


def test_a_replay_never_replaces_its_image(recorded, tmp_path: Path) -> None:
    session, image = tmp_path / "cells.cfrseg.json", tmp_path / "cells.labels.tif"
    text = recorded[1].read_text()
    assert '"cells.tif"' in text
    session.write_text(text.replace('"cells.tif"', f'"{image.name}"'))
    image.write_bytes(pixels := recorded[1].with_name("cells.tif").read_bytes())
    assert "is the image itself" in run(session, "-o", tmp_path, code=1)[1]
    assert image.read_bytes() == pixels


def test_labels_that_cannot_be_written_are_named(recorded, tmp_path: Path) -> None:
    temporary_beside(tmp_path / "cells.labels.tif").mkdir()
    _, said = run(recorded[1], "-o", tmp_path, code=1)
    assert f"{tmp_path / 'cells.labels.tif'} was not written (Is a directory" in said


def test_dry_run_checks_and_writes_nothing(recorded, tmp_path: Path) -> None:
    _, session = recorded
    out = tmp_path / "out"
    printed, _ = run(session, "-o", out, "--dry-run", "--json")
    assert lines(printed)[0]["status"] == "would replay"
    assert not out.exists()


def test_models_changed_in_mid_session_are_followed(
    models: Path, tmp_path: Path
) -> None:
    image = pixels()
    tifffile.imwrite(tmp_path / "two.tif", image)
    small, other = (models / f"{n}.safetensors" for n in ("small", "other"))
    content = SessionContent(
        reference_of(image, path=tmp_path / "two.tif", folder=tmp_path),
        model_reference(small),
        SessionSettings(threads=1),
    )
    writer = SessionWriter.create(tmp_path / "two.cfrseg.json", content)
    annotator = RecordedAnnotator(
        lambda _: image, image.shape, Segmenter.load(small, threads=1)
    )
    annotator.writer = writer
    for number, weights in ((1, None), (2, other), (3, small)):
        if weights is not None:
            annotator.use(Segmenter.load(weights, threads=1), str(weights))
        annotator.apply(ev.ObjectCreated(number))
        annotator.apply(ev.ClickAdded(number, (), PLACES[number], True, number))
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
    labels = annotator.labels_array()
    changes = [e for e in writer.content.events if isinstance(e, ev.ModelChanged)]
    assert [c.name for c in changes] == ["other", "small"]
    assert np.array_equal(Session.open(writer.path).apply(), labels)
    printed, _ = run(writer.path, "-o", tmp_path / "out", "--json")
    assert lines(printed)[0]["as_saved"] is True
    # one model named for all: the first object changes, too
    printed, _ = run(writer.path, "-o", tmp_path / "out", "-m", "other", "--json")
    (said,) = lines(printed)
    assert 1 in [c["object"] for c in said["changed"]]


def test_another_model_is_compared_object_by_object(recorded, tmp_path: Path) -> None:
    labels, session = recorded
    printed, _ = run(session, "-o", tmp_path, "--model", "other", "--json")
    (said,) = lines(printed)
    found = tifffile.imread(tmp_path / "cells.labels.tif")
    assert said["as_saved"] is False
    expected = {}
    for i in {*np.unique(labels), *np.unique(found)} - {0}:
        joint = ((labels == i) | (found == i)).sum()
        iou = ((labels == i) & (found == i)).sum() / joint
        if iou < 1:
            expected[int(i)] = round(float(iou), 4)
    assert expected
    assert {c["object"]: c["iou"] for c in said["changed"]} == expected
    picture = np.asarray(Image.open(tmp_path / "cells.compare.png"))
    assert picture.ndim == 3
    assert Image.open(tmp_path / "contact-sheet.png").width > picture.shape[1]


def test_comparison_needs_no_saved_labels_if_the_model_is_there(
    models: Path, tmp_path: Path
) -> None:
    model = models / "small.safetensors"
    _, with_labels = record_with(model, tmp_path, "with")
    _, without = record_with(model, tmp_path, "without", snapshot=False)
    out = tmp_path / "out"
    printed, _ = run(with_labels, without, "-o", out, "-m", "other", "--json")
    first, second = lines(printed)
    assert first["changed"] == second["changed"] != []


def test_weights_that_changed_are_refused_unless_named(
    recorded, models: Path, tmp_path: Path, monkeypatch
) -> None:
    _, session = recorded
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "small.safetensors").write_bytes(
        (models / "other.safetensors").read_bytes()
    )
    monkeypatch.setenv("CFRSEG_MODELS", str(folder))
    _, errors = run(session, "-o", tmp_path, code=1)
    assert "which are not installed" in errors
    # the same weights under another name will do
    (folder / "renamed.safetensors").write_bytes(
        (models / "small.safetensors").read_bytes()
    )
    printed, _ = run(session, "-o", tmp_path, "--json")
    assert lines(printed)[0]["as_saved"] is True


def test_other_images_of_the_same_kind(recorded, tmp_path: Path) -> None:
    _, session = recorded
    for number in range(2):
        image = np.roll(pixels(), 5 * number, axis=0) * 1.5
        tifffile.imwrite(tmp_path / f"t{number}.tif", image.astype(np.uint8))
    out = tmp_path / "out"
    run(session, "--image", tmp_path / "t*.tif", "-o", out)
    assert {p.name for p in out.glob("*.tif")} == {
        "cells.t0.labels.tif",
        "cells.t1.labels.tif",
    }
    record = json.loads((out / "cells.t1.replay.json").read_text())
    assert record["image"]["name"] == "t1.tif"
    assert record["image"]["is_the_session_s"] is False
    tifffile.imwrite(tmp_path / "small.tif", pixels()[:10])
    small = tmp_path / "small.tif"
    _, errors = run(session, "--image", small, "-o", out, code=1)
    assert "outside" in errors
    assert str(small) in errors
    both = ("--image", tmp_path / "t1.tif", "--image", small)
    printed, errors = run(session, *both, "-o", out / "both", code=1)
    assert printed.startswith("cells.t1: 2 objects")
    assert f"failed: {session} on {small}: " in errors
    np.save(tmp_path / "t1.npy", pixels())
    result = CliRunner().invoke(
        app, ["replay", str(session), "--image", str(tmp_path / "t1.*")]
    )
    assert (result.exit_code, "overwrite each other" in result.output) == (2, True)


def test_what_fails_is_said_once(recorded, tmp_path: Path) -> None:
    _, session = recorded
    lost = tmp_path / "lost.cfrseg.json"
    printed, errors = run(lost, code=1)
    assert printed == ""
    assert errors.count("lost.cfrseg.json") == errors.count("\n") == 1
    device = ("--device", "cuda:99")
    printed, errors = run(*copies(session, tmp_path / "in", 2), *device, code=1)
    assert (printed, errors.count("cuda:99")) == ("", 1)


def test_new_labels_never_stand_beside_an_old_record(recorded, tmp_path: Path) -> None:
    _, session = recorded
    run(session, "-o", tmp_path)
    (tmp_path / "cells.labels.tif").unlink()
    (tmp_path / "cells.labels.tif").mkdir()  # the labels cannot be written
    run(session, "-o", tmp_path, code=1)
    assert not (tmp_path / "cells.replay.json").exists()


def test_an_address_without_a_port_is_one_line(recorded, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    _, session = recorded
    script = "from napari_cfrseg.cli import main; main()"
    arguments = ["replay", str(session), "-o", str(tmp_path), "--scheduler", "nowhere"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "no Dask scheduler answers at nowhere" in done.stderr


def test_wrong_usage(recorded, tmp_path: Path) -> None:
    _, session = recorded
    (twin,) = copies(session, tmp_path / "in", 1)
    same = tmp_path / twin.name
    same.write_bytes(twin.read_bytes())
    assert "called 's000'" in run(twin, same, code=2)[1]
    assert "names no image" in run(session, "--image", "no*.tif", code=2)[1]
    assert "is not one of" in run(session, "--format", "png", code=2)[1]
    assert "no such" in run(tmp_path / "no.cfrseg.json", code=1)[1].lower()


def test_workers_share_the_sessions_and_survive_each_other(
    recorded, tmp_path: Path
) -> None:
    """One of the two processes is killed on its way: every result is there."""
    labels, session = recorded
    made = copies(session, tmp_path / "in", 8)
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_one() -> None:
        wait_for_a_result(out)
        for child in multiprocessing.active_children()[:1]:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    printed, _ = run(*made, "-o", out, "--workers", 2, "--json")
    thread.join()
    assert killed
    assert sorted(r["session"] for r in lines(printed)) == [str(p) for p in made]
    for path in made:
        name = path.name.removesuffix(".cfrseg.json")
        assert np.array_equal(tifffile.imread(out / f"{name}.labels.tif"), labels)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    "count", [6, pytest.param(60, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_dask_cluster_survives_a_killed_worker(
    recorded, tmp_path: Path, count: int
) -> None:
    distributed = pytest.importorskip("distributed")
    labels, session = recorded
    made = copies(session, tmp_path / "in", count)
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
    ) as cluster:
        victim = next(iter(cluster.workers.values())).pid

        def kill_one() -> None:
            if wait_for_a_result(out):
                os.kill(victim, signal.SIGKILL)

        thread = threading.Thread(target=kill_one, daemon=True)
        thread.start()
        address = cluster.scheduler_address
        printed, _ = run(*made, "-o", out, "--scheduler", address, "--json")
        thread.join()
    assert {r["status"] for r in lines(printed)} == {"done"}
    assert len(lines(printed)) == count
    for path in made:
        name = path.name.removesuffix(".cfrseg.json")
        assert np.array_equal(tifffile.imread(out / f"{name}.labels.tif"), labels)
        json.loads((out / f"{name}.replay.json").read_text())
    assert not list(out.glob(".*"))


def test_a_replay_uses_what_finished_objects_taught(
    models: Path, tmp_path: Path
) -> None:
    model = models / "small.safetensors"
    network = Segmenter.load(model, device="cpu").network
    numbers = np.zeros(len(light_numbers(network)))
    numbers[-1] = 2.0  # the last bias: more pixels belong to objects
    taught = ev.ModelAdapted((1, 2), fingerprint(network), tuple(numbers), 0.05)
    again = (ev.ObjectCreated(3), ev.ClickAdded(3, (), PLACES[3], True, 11))
    last = (ev.ObjectCreated(4), ev.ClickAdded(4, (), PLACES[4], True, 12))
    plain, _ = record_with(model, tmp_path, "plain", again)
    events = (taught, *again, ev.ModelAdapted(), *last)
    labels, session = record_with(model, tmp_path, "taught", events)
    assert np.count_nonzero(labels == 3) != np.count_nonzero(plain == 3)
    printed, _ = run(session, "--output", tmp_path, "--json")
    (said,) = lines(printed)
    assert (said["status"], said["as_saved"]) == ("done", True)
    assert np.array_equal(tifffile.imread(tmp_path / "taught.labels.tif"), labels)
