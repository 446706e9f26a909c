"""Suggestions are measured on whole fields: what they cost, and how many are right."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from similarity import SimilarityNetwork
from typer.testing import CliRunner

from napari_cfrseg.cli import app
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.suggestions import ACCEPT_FROM, ObjectSuggestion
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_fields import (
    evaluate_field,
    evaluate_fields,
    format_fields,
)
from napari_cfrseg.evaluation.fields import Field, FieldSettings, crowded_planes
from napari_cfrseg.evaluation.suggestion_robot import SuggestionRobot
from napari_cfrseg.geometry.masks import MaskPatch


def write_field(folder, name, rows, *, decoys=0):
    """Bright disks on noise, 6 in a row; the last ``decoys`` have no label."""
    rng = np.random.default_rng(3)
    image = rng.normal(60, 4, (40 * rows + 10, 250))
    labels = np.zeros(image.shape, np.uint16)
    yy, xx = np.indices(image.shape)
    for index in range(6 * rows):
        y, x = 25 + 40 * (index // 6), 25 + 40 * (index % 6)
        disk = (yy - y) ** 2 + (xx - x) ** 2 <= 81
        image[disk] += 120
        if index < 6 * rows - decoys:
            labels[disk] = index + 1
    for part, values in (
        ("images", image.clip(0, 255).astype(np.uint8)),
        ("labels", labels),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / part / f"{name}.tif", values)


def objects_in(folder):
    return list(LabelFolder(folder, "disks").objects())


@pytest.fixture
def segmenter():
    return Segmenter(SimilarityNetwork(64), device="cpu")


def test_suggesting_alike_disks_costs_a_fraction_of_clicking_them(tmp_path, segmenter):
    write_field(tmp_path, "disks", 6)
    (field,) = crowded_planes(objects_in(tmp_path))
    row = evaluate_field(segmenter, field, FieldSettings(max_objects=5))
    assert row.objects == 36
    assert row.clicked.acceptable >= 1
    assert row.accepted >= 30
    proposed, right = row.found(ACCEPT_FROM)
    assert right == proposed > 0
    assert row.found(0.0)[0] >= proposed
    # one action for each that is accepted, or one for all of them together
    assert row.at_once.close < 0.5 * row.one_by_one.close
    assert row.one_by_one.close <= 0.6 * row.clicked.close + 0.6
    assert row.one_by_one.as_it_is <= row.one_by_one.acceptable


def test_accepting_all_sure_ones_is_repeated_while_it_saves_actions(
    tmp_path, segmenter
):
    write_field(tmp_path, "disks", 6)
    (objects,) = crowded_planes(objects_in(tmp_path))
    field = Field(segmenter, objects, FieldSettings(max_objects=1))
    one_by_one, at_once = SuggestionRobot(field), SuggestionRobot(field)
    one_by_one.run()
    at_once.run(at_once=True)
    assert set(at_once.accepted) == set(one_by_one.accepted)
    assert one_by_one.actions > len(one_by_one.accepted)
    # asked twice at most, and accepted in few acts
    assert at_once.actions <= 5


def test_an_open_suggestion_at_an_object_is_corrected_or_rejected(tmp_path, segmenter):
    write_field(tmp_path, "disks", 5)
    (objects,) = crowded_planes(objects_in(tmp_path))
    field = Field(segmenter, objects, FieldSettings(max_objects=1))
    whole = field.numbers == 4
    rows = np.flatnonzero(whole.any(axis=1))

    def rows_of(first, last):
        part = np.zeros_like(whole)
        part[rows[first:last]] = whole[rows[first:last]]
        seed = tuple(int(v.mean()) for v in np.nonzero(part))
        return ObjectSuggestion(MaskPatch.from_mask(part), seed, 0.3, ())

    def left(first, last, **more):
        suggested = SuggestionRobot(field, open=[rows_of(first, last)], **more)
        return suggested.finish(4, (7, 5))

    # IoU between 0.5 and 0.75: the accepting click, and corrections
    acceptable, as_it_is, close = left(0, 13)
    assert 2 <= close <= acceptable == as_it_is <= 4
    assert left(0, 13, accepted={4: rows_of(0, 19)}) == (0, 0, 0)
    # accepted with all sure ones: the corrections only
    acceptable, as_it_is, close = left(0, 19, accepted={4: rows_of(0, 13)})
    assert 1 <= close == as_it_is <= acceptable <= 3
    # rejected, and clicked from scratch
    assert left(7, 12) == (8, 8, 6)
    # not at the place that is clicked: none is in the way
    assert left(0, 5) == (7, 7, 5)


def test_sure_near_misses_are_kept_to_be_corrected(tmp_path, segmenter):
    write_field(tmp_path, "disks", 5)
    (objects,) = crowded_planes(objects_in(tmp_path))
    field = Field(segmenter, objects, FieldSettings(max_objects=1))

    def sure(number, share):
        rows, columns = np.nonzero(field.numbers == number)
        kept = rows < rows.min() + share * (np.ptp(rows) + 1)
        part = np.zeros(field.shape, bool)
        part[rows[kept], columns[kept]] = True
        return ObjectSuggestion(MaskPatch.from_mask(part), (0, 0), 0.9, ())

    near, poor = sure(4, 0.7), sure(5, 0.3)
    result = SuggestionRobot(field, open=[near, poor, *(sure(n, 1) for n in (6, 7, 8))])
    result.accept_sure()
    assert set(result.accepted) == {4, 6, 7, 8}
    assert result.actions == 2  # accepting all, and removing the poor one

    # each saves the click that would accept it before it is corrected
    result = SuggestionRobot(field, open=[sure(n, 0.6) for n in (4, 5, 6)])
    result.accept_sure()
    assert set(result.accepted) == {4, 5, 6}
    assert result.actions == 1


def test_the_slider_is_moved_and_the_rest_rejected_where_that_saves_actions(
    tmp_path, segmenter
):
    write_field(tmp_path, "disks", 5)
    (objects,) = crowded_planes(objects_in(tmp_path))
    field = Field(segmenter, objects, FieldSettings(max_objects=1))

    def suggested(number, score, share=1.0):
        rows, columns = np.nonzero(field.numbers == number)
        middle = np.abs(rows - rows.mean()) <= share / 2 * (np.ptp(rows) + 1)
        part = np.zeros(field.shape, bool)
        part[rows[middle], columns[middle]] = True
        return ObjectSuggestion(MaskPatch.from_mask(part), (0, 0), score, ())

    right = [suggested(n, 0.6) for n in (4, 5, 6, 7)]
    poor = [suggested(n, 0.4, 0.2) for n in (8, 9, 10)]
    result = SuggestionRobot(field, open=[*right, *poor])
    result.accept_sure()
    assert set(result.accepted) == {4, 5, 6, 7}
    assert result.threshold == 0.6
    assert result.actions == 2  # moving the slider, accepting all
    assert result.finish(8, (3, 2)) == (4, 4, 3)  # rejected before its first click
    result.reject_rest()
    assert result.actions == 3
    assert result.open == []
    assert result.finish(8, (3, 2)) == (3, 3, 2)
    # one is in the way, and one will be corrected: they stay
    result = SuggestionRobot(field, open=[suggested(8, 0.4, 0.6), poor[1]])
    result.reject_rest()
    assert result.actions == 0
    assert len(result.open) == 2


def test_a_stroke_accepts_up_to_five_and_touches_no_wrong_one(tmp_path, segmenter):
    write_field(tmp_path, "disks", 5)
    (objects,) = crowded_planes(objects_in(tmp_path))
    field = Field(segmenter, objects, FieldSettings(max_objects=1))
    row = field.numbers[105, 25::40].tolist()
    assert len(row) == 6
    assert min(row) > 3  # none was clicked

    def suggested(mask):
        return ObjectSuggestion(MaskPatch.from_mask(mask), (0, 0), 0.9, ())

    def acts(right, *wrong):
        found = [suggested(field.numbers == number) for number in right]
        result = SuggestionRobot(field, open=[*found, *wrong])
        result.accept_right(by_strokes=True)
        assert set(result.accepted) == {*right}
        return result.actions

    assert acts(row[:1]) == 1
    assert acts(row[:5]) == 1
    assert acts(row) == 2
    assert acts([row[0], row[2]]) == 2  # too far
    between = np.zeros(field.shape, bool)
    between[100:110, 44:47] = True
    assert acts(row[:2], suggested(between)) == 2


def test_of_a_large_field_the_middle_is_measured(tmp_path, segmenter):
    write_field(tmp_path, "disks", 7)
    (field,) = crowded_planes(objects_in(tmp_path))
    row = evaluate_field(segmenter, field, FieldSettings(max_objects=2, most=20))
    assert 8 <= row.objects <= 20
    proposed, right = row.found(0.5)
    assert row.objects - 5 <= right == proposed


def test_disks_without_a_label_are_wrong_suggestions(tmp_path, segmenter):
    write_field(tmp_path, "disks", 7, decoys=8)
    (field,) = crowded_planes(objects_in(tmp_path))
    row = evaluate_field(segmenter, field, FieldSettings(max_objects=3))
    assert row.objects == 34
    proposed, right = row.found(ACCEPT_FROM)
    assert right < proposed
    # wrong acceptances take an action to make and one to remove
    assert row.with_noise.acceptable > row.one_by_one.acceptable
    assert row.at_once.close >= (proposed - right) / row.objects


def test_planes_with_few_objects_are_no_fields(tmp_path):
    for name, rows in (("a", 5), ("b", 5), ("few", 4)):
        write_field(tmp_path, name, rows)
    objects = objects_in(tmp_path)
    names = [field[0].image_name for field in crowded_planes(objects)]
    assert sorted(names) == ["a", "b"]
    assert [f[0].image_name for f in crowded_planes(objects, 1)] == names[:1]


def test_a_measured_field_is_read_back_and_another_run_refused(tmp_path, segmenter):
    write_field(tmp_path / "data", "disks", 5)
    fields = crowded_planes(objects_in(tmp_path / "data"))
    path, settings = tmp_path / "fields.jsonl", FieldSettings(max_objects=1)
    rows = list(evaluate_fields(path, segmenter, fields, settings, {"model": "one"}))
    # a measurement would fail without a segmenter
    again = evaluate_fields(path, None, fields, settings, {"model": "one"})
    assert [json.dumps(asdict(row)) for row in again] == [
        json.dumps(asdict(row)) for row in rows
    ]
    with pytest.raises(DatasetError, match="another run"):
        list(evaluate_fields(path, segmenter, fields, settings, {"model": "two"}))
    table = format_fields(rows, settings).splitlines()
    assert table[-1].startswith("| sets alike | 1 (30) |")
    assert len({line.count("|") for line in table[2:]}) == 1
    # a set without a sure suggestion has no precision, and the mean leaves it out
    unsure = replace(rows[0], set_name="unsure", scored=())
    table = format_fields([*rows, unsure], settings).splitlines()
    assert "nan" in table[-2]
    assert "nan" not in table[-1]


def test_the_command_writes_a_table_of_fields(tmp_path):
    write_field(tmp_path / "data", "disks", 5)
    output = tmp_path / "report"
    arguments = ["evaluate", str(tmp_path / "data"), "-o", str(output), "--suggest"]
    result = CliRunner().invoke(app, [*arguments, "--max-objects", "2", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["objects"] == 30
    assert "| sets alike | 1 (30) |" in (output / "fields.md").read_text()
    result = CliRunner().invoke(app, [*arguments, "-s", "watershed"])
    assert result.exit_code == 2
    assert "needs one network" in result.output
