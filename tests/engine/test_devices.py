"""The device is chosen by what torch reports, and the reason is one clear line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from similarity import SimilarityNetwork

from napari_cfrseg import Segmenter
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.devices import (
    Found,
    explain,
    find_devices,
    memory_cap,
    resident_bytes,
    resolve_device,
)
from napari_cfrseg.errors import MEMORY_VARIABLE, DeviceError

OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update "
    "your GPU driver"
)
NONE = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"
TWO_GPUS = Found(("NVIDIA A", "NVIDIA B"), "12.6", "", True)


@pytest.mark.parametrize(
    ("found", "device", "reason"),
    [
        (TWO_GPUS, "cuda", "NVIDIA A, the first of 2"),
        (Found(has_mps=True), "mps", "Apple's GPU"),
        (Found((), "12.6", NONE), "cpu", "there is no NVIDIA driver"),
        (Found((), "12.6", NONE, True), "cpu", "does not answer"),
        (Found((), "12.6", OLD, True), "cpu", "too old for CUDA 12.6; update it"),
        (Found((), None, "", True), "cpu", "built without CUDA"),
        (Found(), "cpu", "built for it alone"),
        (Found((), "12.6", "Error 803: mismatch (x)\ny", True), "cpu", "Error 803"),
    ],
)
def test_every_answer_of_torch_has_a_reason_of_one_line(
    found: Found, device: str, reason: str
) -> None:
    chosen, why = explain(found)
    assert chosen == device
    assert reason in why
    assert "\n" not in why
    assert resolve_device("auto", found).type == device


def test_a_gpu_is_chosen_by_its_number() -> None:
    assert resolve_device("cuda:1", TWO_GPUS) == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="there are 2 CUDA devices"):
        resolve_device("cuda:2", TWO_GPUS)
    with pytest.raises(DeviceError, match="no Apple GPU"):
        resolve_device("mps", Found((), "12.6", NONE))
    with pytest.raises(DeviceError, match="driver is too old"):
        resolve_device("cuda", Found((), "12.6", OLD, True))


def test_what_torch_reports_here_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_devices()
    assert len(found.gpus) == torch.cuda.device_count()
    assert explain(found)[1]


def made() -> Segmenter:
    segmenter = Segmenter(SimilarityNetwork(grid_size=256), device="cpu")
    image = np.full((200, 240), 30, np.uint8)
    image[60:100, 80:120] = 200
    segmenter.set_image(image)
    return segmenter


def test_the_reason_is_there_to_be_shown() -> None:
    placement = Segmenter(SimilarityNetwork(), device="auto").placement
    assert placement.reason.startswith(placement.device)
    assert made().placement.reason.startswith("cpu: as asked for\ntorch")
    assert made().placement.backend.startswith("torch")


@pytest.mark.skipif(not resident_bytes(), reason="the system does not tell its memory")
def test_a_cap_lowers_the_number_of_windows_then_refuses() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    free = made().predict([Click((80, 100))])
    window = 256**2 * 1024
    try:
        tight = made()
        # room for one window and a half, beside what is in use
        tight._stages.cap = int(resident_bytes() + window * 1.5)
        with pytest.warns(UserWarning, match="one window is computed at a time"):
            got = tight.predict([Click((80, 100))])
        assert np.array_equal(got.mask, free.mask)
        tight._stages.cap = 10_000_000  # less than Python itself takes
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a notice is given once
            with pytest.raises(torch.OutOfMemoryError, match=MEMORY_VARIABLE):
                tight.predict([Click((20, 20))])
        assert len(tight.notices.texts) == 1
    finally:
        torch.set_num_threads(before)


def test_a_cap_is_a_number_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    assert memory_cap() is None
    monkeypatch.setenv(MEMORY_VARIABLE, "1.5")
    assert memory_cap() == 1_500_000_000
    assert made()._stages.cap == 1_500_000_000
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv(MEMORY_VARIABLE, wrong)
        with pytest.raises(DeviceError, match="expected gigabytes"):
            memory_cap()
