"""A replay computes with the program that the session records, where it is."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from napari_cfrseg.session.format import SessionSettings
from napari_cfrseg.session.references import backend_of


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
