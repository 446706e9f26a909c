"""Packs of labelled images keep labels to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from packs import read_pack, read_side, write_pack

from cfrseg_training.loop.atlas import Sample
from cfrseg_training.loop.labelled import to_uint8
from napari_cfrseg.errors import DatasetError


def test_pack_keeps_labels_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 255, (40, 50, 1), np.uint8), 3, axis=2)
    labels = np.zeros((40, 50), np.int32)
    labels[5:20, 5:20], labels[25:35, 30:45] = 1, 40_000
    packed = Sample(to_uint8(image), labels, "disks", "a", is_sparse=True)
    other = Sample(image, labels, "disks", "b")
    write_pack([packed, other], tmp_path / "p.zip")
    back = list(read_pack(tmp_path / "p.zip"))
    np.testing.assert_array_equal(back[0].labels, labels)
    np.testing.assert_array_equal(back[0].image, packed.image)
    assert (back[0].is_sparse, back[1].group) == (True, "b")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(DatasetError, match="is not a pack"):
        list(read_pack(tmp_path / "bad.zip"))


def test_a_side_is_read_without_some_sets(tmp_path) -> None:
    image, labels = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.int32)
    for number, name in enumerate(("axons", "nuclei")):
        sample = Sample(image, labels, name, "a group")
        write_pack([sample], tmp_path / f"train-{number}.zip")
    assert [s.dataset for s in read_side(tmp_path, "train")] == ["axons", "nuclei"]
    assert [s.dataset for s in read_side(tmp_path, "train", ["axons"])] == ["nuclei"]
