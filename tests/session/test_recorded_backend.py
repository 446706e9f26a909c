"""A replay computes with the program, model and threads that the session records."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from napari_cfrseg.io.atomic import temporary_beside
from napari_cfrseg.model.weights_file import weights_sha256
from napari_cfrseg.session.format import (
    ImageReference,
    ModelReference,
    SessionContent,
    SessionSettings,
)
from napari_cfrseg.session.references import backend_of, find_weights
from napari_cfrseg.session.replay_many import KeptSegmenters, replay_all
from napari_cfrseg.session.replay_session import ReplayTask

IMAGE = ImageReference(None, (8, 8), "uint8", ("y", "x"), "0" * 64)


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        (SessionSettings(), None, "torch"),
        (SessionSettings(backend="torch 2.9.0"), "cpu", "torch"),
        (SessionSettings(backend="OpenVINO 2026.4.1"), None, "openvino"),
        (SessionSettings(backend="OpenVINO 2026.4.1"), "cpu", "openvino"),
        (SessionSettings(backend="OpenVINO 2026.4.1"), "cuda", "torch"),
    ],
)
def test_the_recorded_program_computes(
    settings: SessionSettings, device: str | None, expected: str
) -> None:
    if find_spec("openvino") is None:
        expected = "torch"
    assert backend_of(settings, device) == expected


def test_a_model_that_is_gone_hides_no_other(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(tmp_path))
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "unplugged.safetensors")
    there = tmp_path / "renamed.safetensors"
    there.symlink_to(random_model)
    wanted = ModelReference("former", weights_sha256(random_model))
    assert find_weights(wanted) == there


def test_a_session_s_threads_are_not_the_next_one_s(random_model: Path) -> None:
    before = torch.get_num_threads()
    sessions = [
        SessionContent(IMAGE, settings=SessionSettings(threads=n)) for n in (3, None)
    ]
    try:
        torch.set_num_threads(2)
        segmenter_for, counts = KeptSegmenters(), []
        for content in sessions:
            segmenter_for(content, random_model, "cpu")
            counts.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert counts == [3, 2]


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    """A replay may be killed at any result: the next one removes what it left."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    exports = (".measurements.csv", ".geojson", ".coco.json")
    task = ReplayTask(tmp_path / "none.cfrseg.json", tmp_path, "a", exports=exports)
    for path in (task.labels_path, task.record_path, *task.export_paths):
        left = temporary_beside(path).name.replace(f"-{os.getpid()}", f"-{ended.pid}")
        (tmp_path / left).touch()
    (result,) = replay_all([task])
    assert result.status == "failed"
    assert list(tmp_path.iterdir()) == []
