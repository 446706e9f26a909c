"""The fine-tuning dock: its job's folder, and a fine-tuning for real in a viewer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
from napari.layers import Image, Labels
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QMessageBox

from cfrseg_training.loop.labelled import DataRequest, read_data
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.gui.finetune_job import (
    FineTuneRun,
    Pixels,
    free_name,
    labelled_images,
    pixels_of,
    request_of,
    start_program,
    write_pixels,
)
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig
from napari_cfrseg.training_job import (
    JobStatus,
    TrainingJob,
    list_jobs,
    verdict_sentence,
)

PLUGIN = "napari-cfrseg"
CLICKS, TUNE = "Segment with clicks", "Fine-tune on your labels"
SMALL = CfrNetConfig(
    widths=(16, 24, 32, 32), feedback_width=8, head_width=16, grid_size=64
)
CENTRES = [(24, 20), (26, 70), (24, 118), (72, 24), (70, 72), (74, 120)]


def disks():
    ys, xs = np.mgrid[:96, :144]
    labels = np.zeros(ys.shape, np.int32)
    for number, (y, x) in enumerate(CENTRES, 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= (11 + number) ** 2] = number
    noise = np.random.default_rng(0).integers(0, 40, labels.shape)
    return (noise + 150 * (labels > 0)).astype(np.uint8), labels


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Models and jobs of this test only, and a tiny untrained base model."""
    monkeypatch.setenv("CFRSEG_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("CFRSEG_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    network = CfrNet(SMALL)
    metadata = checkpoint.Metadata(architecture=network.architecture(), name="tiny")
    checkpoint.save(tmp_path / "models" / "tiny.safetensors", network, metadata)
    return tmp_path


def test_only_labelled_planes_are_handed_over(tmp_path):
    image, labels = disks()
    stack = np.stack([image, image // 2, image // 3])
    drawn = np.stack([labels * 0, labels, labels * 0])
    pixels = pixels_of(Image(stack, name="a/b c"), Labels(drawn))
    write_pixels([pixels], tmp_path)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "images" / "a_b_c.tif"), image // 2
    )
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "labels" / "a_b_c.tif"), labels
    )


def test_layers_that_do_not_fit_and_empty_labels_are_refused(tmp_path):
    image, labels = disks()
    with pytest.raises(DatasetError, match="drawn on this image"):
        pixels_of(Image(image), Labels(labels[:50]))
    colours = np.repeat(image[..., None], 3, axis=2)
    pixels = pixels_of(Image(colours, rgb=True), Labels(labels * 0))
    with pytest.raises(DatasetError, match="empty"):
        write_pixels([pixels], tmp_path)


def test_every_image_gets_the_labels_drawn_on_it(tmp_path):
    image, drawn = disks()
    layers = [
        Image(image, name="cells"),
        Image(image // 2, name="cells 2"),
        Image(image[:50], name="other"),
        Labels(drawn, name="cells objects"),
        Labels(drawn * 2, name="cells 2 objects"),
        Labels(drawn * 0, name="hidden", visible=False),
        Labels(drawn[:50], name="masks"),
        Image(image[:20], name="unlabelled"),
        Labels(drawn[:7], name="of nothing"),
    ]
    found = labelled_images(layers)
    assert [(x.name, y.name) for x, y in found] == [
        ("cells", "cells objects"),
        ("cells 2", "cells 2 objects"),
        ("other", "masks"),
    ]
    images = [Pixels("a", x.data, y.data, False) for x, y in found]
    write_pixels(images, tmp_path)  # of one name
    data = read_data(DataRequest(folders=(tmp_path,)))
    assert not data.broken
    assert sorted(plane.labels.max() for plane in data.planes) == [
        drawn[:50].max(),
        drawn.max(),
        2 * drawn.max(),
    ]


def test_of_a_pyramid_the_level_that_fits_is_taken():
    image, labels = disks()
    pyramid = Image([image, image[::2, ::2]], multiscale=True)
    pixels = pixels_of(pyramid, Labels(labels[::2, ::2]))
    assert tuple(pixels.image.shape) == (48, 72)


def test_labels_are_matched_with_their_image_without_reading_them():
    read = []

    def block(numbers):
        read.append(numbers)
        return numbers

    stack = da.from_array(np.zeros((6, 8, 8), np.int32), chunks=(1, 8, 8))
    lazy = Labels(stack.map_blocks(block, meta=np.zeros((0, 0, 0), np.int32)))
    names = ("c", "z", "y", "x")
    image = Image(np.zeros((2, 6, 8, 8), np.uint16), axis_labels=names)
    read.clear()
    assert labelled_images([image, lazy]) == [(image, lazy)]
    assert not read


def test_channels_are_handed_over_as_the_click_dock_uses_them(tmp_path):
    image, labels = disks()
    five = np.stack([image // n for n in range(1, 6)]).astype(np.uint16)
    names = ("c", "y", "x")
    pixels = pixels_of(Image(five, name="five", axis_labels=names), Labels(labels))
    assert not pixels.rgb
    write_pixels([pixels], tmp_path)
    written = tifffile.imread(tmp_path / "images" / "five.tif")
    np.testing.assert_array_equal(written, five[:3])
    data = read_data(DataRequest(folders=(tmp_path,)))
    assert data.planes[0].image.shape == (*labels.shape, 3)


def test_a_model_never_takes_the_name_of_another(folders):
    assert free_name("tiny") == "tiny-2"
    assert free_name("../my cells") == "my-cells"


def test_a_job_is_found_by_its_folder_and_knows_whether_it_lives(folders):
    request = request_of("m", "tiny", 1, sparse=True, folder=None)
    first = TrainingJob.create("m", request)
    second = TrainingJob.create("m", request)
    assert [j.folder for j in list_jobs()] == [second.folder, first.folder]
    assert first.request["data"]["ignore"] == "sparse"
    assert not first.is_running
    first.start_heartbeat()
    assert first.is_running
    first.write_status(JobStatus("done", 1.0))
    assert not first.is_running
    with pytest.raises(ValueError, match="expected run, pause, stop or cancel"):
        first.set_control("sing")


def test_a_program_that_another_window_started_can_be_cancelled(folders):
    """It reads the wish wherever it is, and it is known at once that it ended."""
    request = request_of("m", "tiny", 1, sparse=True, folder=None)
    job = TrainingJob.create("m", request)
    script = (
        "import sys, time; from pathlib import Path; "
        "from napari_cfrseg.training_job import TrainingJob; "
        "TrainingJob(Path(sys.argv[1])).start_heartbeat(); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(job.folder)])
    while not job.is_running:
        assert process.poll() is None
        time.sleep(0.05)
    run = FineTuneRun()
    run.find()
    assert run.is_active
    run.cancel()
    assert process.wait() == 130
    assert run.is_interrupted


@pytest.mark.skipif(sys.platform == "win32", reason="priorities are read otherwise")
def test_the_program_leaves_the_processor_to_clicks(folders):
    """Lowest priority, also among sessions, between which Linux shares first."""
    image, labels = disks()
    request = request_of("m", "tiny", 60, sparse=True, folder=None)
    job = TrainingJob.create("m", request)
    write_pixels([pixels_of(Image(image, name="disks"), Labels(labels))], job.folder)
    process = start_program(job)
    try:
        group = Path(f"/proc/{process.pid}/autogroup")
        while os.getpriority(os.PRIO_PROCESS, process.pid) < 19 or (
            group.exists() and not group.read_text().strip().endswith("nice 19")
        ):
            assert process.poll() is None, (job.folder / "log.txt").read_text()
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def viewer(make_napari_viewer, npe2pm, plugin_settings, folders):
    npe2pm.register(PluginManifest.from_distribution(PLUGIN))
    viewer = make_napari_viewer(show=True)
    image, _ = disks()
    viewer.add_image(image, name="disks")
    yield viewer
    for job in list_jobs():
        job.set_control("stop")


def click(viewer, qtbot, y, x):
    canvas = viewer.window._qt_viewer.canvas.native
    centre = np.asarray(viewer.scene.camera.center[-2:])
    size = np.array([canvas.height(), canvas.width()])
    row, column = (np.array([y, x]) - centre) * viewer.scene.camera.zoom + size / 2
    place = QPoint(round(column), round(row))
    qtbot.mouseMove(canvas, place)
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=place)


@pytest.mark.gui
def test_the_only_layer_of_a_kind_is_chosen(viewer, qtbot):
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    assert dock.image.value is viewer.layers["disks"]
    assert dock.labels.value is None
    assert dock.status.text() == "Choose an image and its labels, or a folder."
    assert not dock.use_button.isVisible()
    column = dock.area.widget()
    # once the window's style has come
    qtbot.waitUntil(lambda: column.minimumSizeHint().width() <= dock.minimumWidth())
    labels = np.zeros(viewer.layers["disks"].data.shape, np.int32)
    painted = viewer.add_labels(labels, name="painted")
    assert dock.labels.value is painted
    dock.look()
    assert dock.status.text().startswith("Start trains a new model on these labels")
    other = viewer.add_image(labels.astype(np.uint8), name="other")
    viewer.add_labels(labels, name="other objects")
    dock.image.value = dock.image.choices[-1]
    assert not dock.labels.enabled
    dock.look()
    assert "2 images (“painted” on “disks”, “other objects” on “other”)" in (
        dock.status.text()
    )
    dock.image.value = other
    assert dock.labels.enabled


@pytest.mark.gui
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.timeout(1800)
def test_a_fine_tuning_survives_its_mishaps_and_its_model_clicks(viewer, qtbot):
    """Paint, fine-tune, kill, cancel, close the dock, pause, stop, keep, click."""
    image = viewer.layers["disks"]
    painted = viewer.add_labels(np.zeros(image.data.shape, np.int32), name="painted")
    for number, (y, x) in enumerate(CENTRES, 1):
        painted.selected_label = number
        painted.brush_size = 2 * (11 + number)
        painted.paint((y, x), number)
    _, clicks = viewer.window.add_plugin_dock_widget(PLUGIN, CLICKS)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    dock.image.value, dock.labels.value = image, painted
    dock.base.value, dock.minutes.value, dock.name.value = "tiny", 5, "disks"
    dock.start_button.click()
    qtbot.waitUntil(lambda: dock.run.process is not None)
    os.kill(dock.run.process.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: dock.start_button.text() == "Go on")
    assert "Interrupted" in dock.status.text()
    dock.start_button.click()
    qtbot.waitUntil(lambda: dock.run.is_active)
    assert not dock.pause_button.isEnabled()  # it does not train yet
    dock.cancel_button.click()
    qtbot.waitUntil(lambda: dock.start_button.text() == "Go on")
    assert dock.status.text().startswith("Cancelled. Go on continues")
    assert not dock.cancel_button.isEnabled()
    dock.start_button.click()
    assert dock.job.control == "run"
    qtbot.waitUntil(lambda: dock.job.status.phase == "training")
    folder = dock.job.folder

    # the program goes on without the dock; another dock finds it
    viewer.window.remove_dock_widget(dock)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    assert dock.job.folder == folder
    assert not dock.start_button.isEnabled()
    dock.pause_button.click()
    qtbot.waitUntil(lambda: dock.job.status.phase == "paused")
    assert dock.pause_button.text() == "Go on"
    dock.pause_button.click()
    qtbot.waitUntil(lambda: bool(dock.curve.loss))
    assert dock.stop_button.isEnabled()
    dock.stop_button.click()
    qtbot.waitUntil(lambda: dock.job.is_finished)
    dock.look()
    assert dock.job.status.phase == "done", (folder / "log.txt").read_text()
    assert dock.curve.loss
    assert dock.table.item(1, 3).text()
    assert dock.job.report["how"] == "each half of the image in turn"
    assert dock.job.status.verdict != "refused"
    assert dock.status.text() == verdict_sentence(dock.job.report)

    clicks.image_choice.value = image
    qtbot.waitUntil(lambda: clicks.controller is not None)
    dock.use_button.click()
    assert clicks.model_choice.value == "disks"
    qtbot.waitUntil(lambda: not clicks.controller.view.loading)
    viewer.reset_view()
    click(viewer, qtbot, *CENTRES[4])
    qtbot.waitUntil(lambda: clicks.controller.labels.layer.data[CENTRES[4]] == 1)
    assert clicks.controller.annotator.model == "disks"
    if "CFRSEG_SCREENSHOT" in os.environ:
        viewer.screenshot(os.environ["CFRSEG_SCREENSHOT"], canvas_only=False)
    clicks.let_go()
    dock.let_go()


def ended_job(name, verdict, difference, folders):
    """Make a job as it is left by a training that ended while napari was closed."""
    request = request_of(name, "tiny", 1, sparse=True, folder=None)
    job = TrainingJob.create(name, request)
    candidate = job.folder / "candidate-0.safetensors"
    shutil.copyfile(folders / "models" / "tiny.safetensors", candidate)
    figures = {"objects": 9, "noc85": 3.0, "noc90": 4.0, "iou1": 0.7, "iou5": 0.9}
    report = {"before": figures, "after": figures, "difference": difference}
    report |= {"low": difference - 1, "high": difference + 1, "how": "held-out images"}
    report |= {"verdict": verdict, "candidate": str(candidate), "suggestions": []}
    job.write_report(report)
    job.write_status(JobStatus("done", 1.0, 0.0, "", verdict))
    return job


@pytest.mark.gui
def test_jobs_that_ended_while_napari_was_closed_are_listed_with_their_result(
    viewer, qtbot, folders
):
    ended_job("worse", "refused", 1.74, folders)
    ended_job("maybe", "not proven", -0.3, folders)
    _, clicks = viewer.window.add_plugin_dock_widget(PLUGIN, CLICKS)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    assert [title.split(" ")[0] for title, _ in dock._listed] == ["maybe", "worse"]
    assert dock.status.text().startswith("Needs 0.3 clicks fewer per object")
    assert dock.table.item(0, 3).text() == "4"
    assert dock.start_button.text() == "Start"
    # nothing is cut off, however long a job's line is
    column = dock.area.widget()
    # once the window's style has come
    qtbot.waitUntil(lambda: column.minimumSizeHint().width() <= dock.minimumWidth())
    dock.use_button.click()
    assert (folders / "models" / "maybe.safetensors").is_file()
    assert "maybe" in clicks.model_choice.choices

    dock.jobs.value = dock.jobs.choices[-1]
    assert dock.status.text() == (
        "Needs 1.7 clicks more per object than before on your images: not kept."
    )
    assert not dock.use_button.isEnabled()
    dock.delete_button.click()
    assert [job.status.verdict for job in list_jobs()] == ["not proven"]
    assert dock.status.text().startswith("Needs 0.3")
    dock.delete_button.click()
    assert not list_jobs()
    assert not dock.table.isVisible()
    assert not dock.use_button.isVisible()
    clicks.let_go()
    dock.let_go()


@pytest.mark.gui
def test_a_model_that_was_not_looked_at_is_not_deleted_unasked(
    viewer, qtbot, folders, monkeypatch
):
    job = ended_job("maybe", "not proven", -0.3, folders)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    dock.delete_button.click()
    assert job.folder.is_dir()
    dock.delete_button.click()
    assert not job.folder.exists()
    assert not answers
    dock.let_go()


@pytest.mark.gui
def test_a_job_that_is_looked_at_meanwhile_outlives_labels_that_cannot_be_read(
    viewer, qtbot, folders
):
    """The job whose labels could not be handed over is dropped, and no other one."""
    ended = ended_job("maybe", "not proven", -0.3, folders)
    fails, go = threading.Event(), threading.Event()

    def block(numbers):
        if fails.is_set():
            go.wait(20)
            raise OSError("the store is gone")
        return numbers

    shape = viewer.layers["disks"].data.shape
    numbers = da.zeros(shape, dtype=np.int32, chunks=shape)
    painted = da.map_blocks(block, numbers, dtype=np.int32)
    viewer.add_labels(painted, name="painted", visible=False)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, TUNE)
    fails.set()
    dock.start_button.click()
    assert len(list_jobs()) == 2
    dock.jobs.value = ended.folder
    assert dock.delete_button.isEnabled()
    assert not dock.cancel_button.isEnabled()
    assert not dock.start_button.isEnabled()
    go.set()
    qtbot.waitUntil(dock.start_button.isEnabled)
    assert [job.folder for job in list_jobs()] == [ended.folder]
    assert dock.job.folder == ended.folder
    dock.let_go()
