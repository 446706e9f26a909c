"""The bundled micrographs are real, labelled, small, credited and not test images."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from napari_cfrseg.samples import load_demo, load_sample, sample_names

SPLIT = Path(__file__).resolve().parents[1] / "benchmarks" / "split.json"


@pytest.mark.parametrize("name", sample_names())
def test_sample_has_pixels_labels_and_credit(name: str) -> None:
    sample = load_sample(name)
    assert sample.image.dtype == np.uint8
    assert sample.labels.dtype == np.uint16
    assert sample.labels.shape == sample.image.shape[:2]
    assert int(np.ptp(sample.image)) > 100
    assert sample.labels.max() >= 10
    assert sample.licence in {"MIT", "CC0-1.0", "CC-BY-4.0"}
    assert sample.attribution
    assert "doi:10." in sample.citation


def test_unknown_sample_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'moon'.*powder_sem"):
        load_sample("moon")


def test_mit_samples_carry_their_licence_text() -> None:
    licences = files("napari_cfrseg") / "sample_data" / "licences"
    for name in sample_names():
        if load_sample(name).licence == "MIT":
            text = (licences / f"{name}.txt").read_text(encoding="utf-8")
            assert "Permission is hereby granted" in text


def test_bundle_stays_small() -> None:
    folder = files("napari_cfrseg") / "sample_data"
    sizes = [len(f.read_bytes()) for f in folder.iterdir() if f.is_file()]
    assert sum(sizes) < 2_500_000


def test_demo_clicks_each_mark_an_object_of_their_own() -> None:
    demo = load_demo()
    labels = load_sample(demo.sample).labels
    first_ids = [int(labels[clicks[0].pixel]) for clicks in demo.objects]
    assert all(first_ids)
    assert len(set(first_ids)) == len(first_ids) >= 4
    for clicks, own_id in zip(demo.objects, first_ids, strict=True):
        for click in clicks:
            assert (int(labels[click.pixel]) == own_id) == click.is_positive


def test_no_sample_was_cut_from_a_test_image() -> None:
    script = SPLIT.parents[1] / "docs" / "make_samples.py"
    split = json.loads(SPLIT.read_text(encoding="utf-8"))["sets"]
    source = script.read_text(encoding="utf-8")
    for sides in split.values():
        for image_name in sides["test"]:
            assert f'"{image_name}"' not in source
