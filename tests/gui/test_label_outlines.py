"""Outlines of labels: where they are drawn, and that napari draws these."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_cfrseg.gui.segment.label_layer import outline_quickly, outlined


def field() -> np.ndarray:
    """Return one label at the border beside another one, and a third apart."""
    labels = np.zeros((30, 40), np.uint8)
    labels[:12, 5:15] = 1
    labels[:12, 15:25] = 2
    labels[18:28, 20:36] = 7
    return labels


def test_labels_are_outlined_where_another_one_is_near():
    thin, thick = outlined(field(), 1), outlined(field(), 2)
    assert "".join(map(str, thin[5, 3:27])) == "001000000001200000000200"
    assert "".join(map(str, thick[5, 3:27])) == "001100000011220000002200"
    assert thin[0, 10] == 0  # it goes on beyond the border
    assert thick[11, 10] == thick[10, 10] == 1
    assert thick[9, 10] == 0
    # two steps away along one axis or both
    assert thick[19, 21] == 7
    assert thick[20, 22] == 0
    assert thick.dtype == np.uint8


@pytest.mark.parametrize("px", [0, 1, 3])
def test_napari_draws_them_whole_and_in_part(px):
    layer = Labels(field())
    outline_quickly(layer)
    layer.contour = px
    expected = outlined(field(), px) if px else field()
    shown = np.asarray(layer._raw_to_displayed(field()))
    assert np.array_equal(shown != 0, expected != 0)
    for part in ((slice(0, 9), slice(8, 31)), (slice(17, 30), slice(0, 40))):
        some = np.asarray(layer._raw_to_displayed(field(), data_slice=part))
        assert np.array_equal(some, shown[part])
