"""A fine-tuning that is killed or loses its images or its disk loses only time.

Separate programs meet SIGKILL or a full file system, this process a quota; it continues
from their states and must end with the weights of an undisturbed run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from cfrseg_training.command import app
from cfrseg_training.loop.labelled import DataRequest, read_data
from cfrseg_training.loop.run_state import write_state, write_weights
from napari_cfrseg.errors import DatasetError, TrainingError
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig
from napari_cfrseg.training_job import JobReporter

SMALL = CfrNetConfig(
    widths=(16, 16, 16, 16), feedback_width=8, head_width=8, grid_size=64
)
STEPS = 5
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
pytestmark = pytest.mark.usefixtures("one_thread")


def write_images(folder):
    ys, xs = np.mgrid[:72, :72]
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for index in range(4):
        labels = np.zeros((72, 72), np.uint16)
        for number, (y, x) in enumerate(((20, 20), (50, 46)), 1):
            labels[(ys - y) ** 2 + (xs - x) ** 2 <= (8 + index) ** 2] = number
        noise = np.random.default_rng(index).integers(0, 2000, (72, 72))
        image = (noise + 9000 * (labels > 0)).astype(np.uint16)
        tifffile.imwrite(folder / "images" / f"{index}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{index}.tif", labels)


def write_config(folder, steps=STEPS):
    """Write what to do: a few steps, the state after each of them."""
    (folder / "config.toml").write_text(
        'output = "m.safetensors"\nbase = "base.safetensors"\nminutes = 10000\n'
        "threads = 1\nforgetting = false\n"
        '[data]\nimages = "images"\nlabels = "labels"\n'
        f"[train]\nsteps = {steps}\nbatch = 2\nwarmup_steps = 1\nnote_every = 1\n"
        "save_every_s = 0.0\n"
        "[rounds]\nweights = [1.0]\nrefined = 0.0\nstarted = 0.0\n[suem]\noff = true\n"
    )


def arguments(folder):
    return ["config.toml", "--base", str(folder / "base.safetensors"), "--job", "job"]


def go_on(folder, monkeypatch):
    """Run (or go on with) the training in this process; return the command's result."""
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, arguments(folder))


def program(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "cfrseg_training.command", *arguments(folder)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def candidate(folder):
    from safetensors.torch import load_file

    return load_file(folder / "job" / "candidate-0.safetensors")


def assert_same_weights(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Images, labels, a base model and a configuration."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    network = CfrNet(SMALL)
    metadata = checkpoint.Metadata(
        architecture=network.architecture(), name="base", licence="BSD-3-Clause"
    )
    checkpoint.save(folder / "base.safetensors", network, metadata)
    write_images(folder)
    write_config(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(start, folder)
    with pytest.MonkeyPatch.context() as patch:
        done = go_on(folder, patch)
    assert done.exit_code == 0, done.output
    return candidate(folder)


@pytest.fixture(scope="module")
def killed(start, tmp_path_factory):
    """A run that SIGKILL ended in its middle."""
    if sys.platform == "win32":
        pytest.skip("SIGKILL is POSIX")
    folder = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree(start, folder)
    process = program(folder)
    state = folder / "job" / "training-0.pt"
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < torch.load(state, weights_only=True)["step"] < STEPS
    return folder


@pytest.fixture
def interrupted(killed, tmp_path):
    """A copy of the killed run, to go on with."""
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    return folder


@posix
def test_a_killed_fine_tuning_goes_on_to_the_same_weights(
    interrupted, undisturbed, monkeypatch
):
    done = go_on(interrupted, monkeypatch)
    assert done.exit_code == 0, done.output
    assert_same_weights(candidate(interrupted), undisturbed)


def test_images_that_go_in_mid_run_are_not_missed(
    start, undisturbed, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(start, folder)
    may_continue = JobReporter.may_continue
    gone = []

    def spoil_once(self):
        if not gone:
            (folder / "images" / "0.tif").unlink()
            (folder / "images" / "1.tif").write_bytes(b"")
            shutil.rmtree(folder / "labels")
            gone.append(True)
        return may_continue(self)

    monkeypatch.setattr(JobReporter, "may_continue", spoil_once)
    done = go_on(folder, monkeypatch)
    assert done.exit_code == 0, done.output
    assert gone
    assert_same_weights(candidate(folder), undisturbed)


@posix
def test_an_image_spoilt_before_the_resume_is_named_and_may_be_put_back(
    interrupted, undisturbed, monkeypatch
):
    image = interrupted / "images" / "2.tif"
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    state = interrupted / "job" / "training-0.pt"
    before = state.read_bytes()
    done = go_on(interrupted, monkeypatch)
    assert done.exit_code == 1
    messages = [line for line in done.stderr.splitlines() if "cfrseg-train:" in line]
    assert len(messages) == 1
    assert "not those this training began with (2: " in messages[0]
    assert "put them back to go on" in messages[0]
    assert state.read_bytes() == before
    image.write_bytes(whole)
    done = go_on(interrupted, monkeypatch)
    assert done.exit_code == 0, done.output
    assert_same_weights(candidate(interrupted), undisturbed)


@contextmanager
def quota(most):
    """Let no file of this process grow beyond ``most`` bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_full_disk(folder, room_kb):
    """Run with the job on a file system of its own that has only so much room."""
    job = folder / "job"
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    shutil.move(job, folder / "kept")
    job.mkdir()
    command = f"""
        mount -t tmpfs -o size=1g tmpfs job || exit 77
        cp -r kept/. job/ || exit 77
        used=$(df -k --output=used job | tail -1)
        mount -o remount,size=$((used + {room_kb}))k job || exit 77
        "$0" -m cfrseg_training.command "$@" >/dev/null; rc=$?
        rm -rf kept; cp -r job kept; exit $rc
    """
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    process = subprocess.run(
        [*unshared, command, sys.executable, *arguments(folder)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    job.rmdir()
    shutil.move(folder / "kept", job)
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("no file system can be mounted here")
    return process.stderr, process.returncode


@posix
@pytest.mark.parametrize(
    "how",
    [
        "quota",
        pytest.param("full for the state", marks=pytest.mark.slow),
        "full to the brim",
    ],
)
def test_a_full_disk_is_one_error_and_the_run_goes_on_once_there_is_room(
    interrupted, undisturbed, monkeypatch, how
):
    state = interrupted / "job" / "training-0.pt"
    before = state.read_bytes()
    if how == "quota":
        with quota(len(before) // 2):
            done = go_on(interrupted, monkeypatch)
        errors, code = done.stderr, done.exit_code
    else:
        room_kb = 0 if how == "full to the brim" else 2000
        errors, code = on_full_disk(interrupted, room_kb)
    assert code == 1, errors
    assert "Traceback" not in errors
    messages = [line for line in errors.splitlines() if "cfrseg-train:" in line]
    assert len(messages) == 1
    assert "make room" in messages[0]
    assert "run the same command again" in messages[0]
    if how != "full to the brim":
        assert "the state before it is whole" in messages[0]
    assert state.read_bytes() == before
    assert not list((interrupted / "job").glob(".training-*"))
    done = go_on(interrupted, monkeypatch)
    assert done.exit_code == 0, done.output
    assert_same_weights(candidate(interrupted), undisturbed)


@pytest.mark.filterwarnings("ignore")  # what the readers leave open or deprecate
@pytest.mark.parametrize("suffix", ["tif", "deflate.tif", "png"])
def test_a_truncated_image_is_listed_whatever_its_length(tmp_path, suffix):
    write_images(tmp_path)
    image = tifffile.imread(tmp_path / "images" / "3.tif")
    (tmp_path / "images" / "3.tif").unlink()
    path = tmp_path / "images" / f"3.{suffix.rpartition('.')[2]}"
    if suffix == "png":
        Image.fromarray(image).save(path)
    else:
        kind = "deflate" if "deflate" in suffix else None
        tifffile.imwrite(path, image, compression=kind)
    whole = path.read_bytes()
    request = DataRequest(tmp_path / "images", tmp_path / "labels")
    assert not read_data(request).broken
    end = len(whole) - 64  # a PNG's last bytes hold no pixels
    for length in {*range(0, end, max(1, end // 40)), 1, 8, 9}:
        path.write_bytes(whole[:length])
        data = read_data(request)
        assert data.names == ["0", "1", "2"], length
        assert data.broken["3"], length
    for other in range(3):
        (tmp_path / "images" / f"{other}.tif").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no usable labelled image \(0: "):
        read_data(request)


def test_the_pixels_of_a_session_are_its_own(tmp_path):
    """A session maps its image's file; a file cut short would end the program."""
    from cfrseg_training.loop.labelled import labelled

    path = tmp_path / "mapped.tif"
    write_images(tmp_path)
    shutil.copy(tmp_path / "images" / "0.tif", path)
    mapped = tifffile.memmap(path, mode="r")
    labels = tifffile.imread(tmp_path / "labels" / "0.tif")
    (plane,) = labelled("mapped", np.asarray(mapped), labels)
    assert not np.shares_memory(plane.image, mapped)
    np.testing.assert_array_equal(plane.image, mapped)


@posix
@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"what was there")
    layer = torch.nn.Linear(64, 64)
    metadata = checkpoint.Metadata(architecture={}, name="m", licence="BSD-3-Clause")
    write = {
        "m.pt": lambda: write_state(layer.state_dict(), path),
        "m.safetensors": lambda: write_weights(path, layer, metadata),
    }[name]
    with quota(4096), pytest.raises(TrainingError, match="make room") as caught:
        write()
    assert ("state before it is whole" in str(caught.value)) == (name == "m.pt")
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]
    write()
    assert path.stat().st_size > 4096
