"""``cfrseg evaluate`` from folder to report, and comparisons of runs."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from napari_cfrseg.cli.evaluate import EXAMPLES, evaluate
from napari_cfrseg.cli.options import Command
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import scores
from napari_cfrseg.evaluation.datasets.choice import (
    draw_objects,
    guess_layout,
)
from napari_cfrseg.evaluation.evaluate_objects import RunSettings
from napari_cfrseg.evaluation.report import rank_rows
from napari_cfrseg.evaluation.report.comparisons import compare_runs
from napari_cfrseg.evaluation.runner import Run, read_run
from napari_cfrseg.evaluation.scores import ResultRow, bootstrap_means

app = typer.Typer()
app.command(cls=Command, epilog=EXAMPLES)(evaluate)


def write_images(folder, count=3):
    for index in range(count):
        labels = np.zeros((64, 80), np.uint16)
        labels[6:22, 8:24] = 1
        labels[30:54, 40 : 60 + index] = 2
        image = np.where(labels > 0, 200, 20).astype(np.uint8)
        image[30:40] //= 2
        for part, array in (("images", image), ("labels", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"i{index}.tif", array)


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "data")
    return tmp_path / "data"


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_one_command_measures_several_segmenters_and_reports(data, tmp_path):
    out = tmp_path / "report"
    arguments = [data, "-o", out, "-s", "flood_factory:make", "-s", "watershed"]
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert "report:" in result.output

    written = {path.name for path in out.iterdir()}
    assert written >= {
        *("summary.json", "objects.csv", "table.md", "compare.md", "command.txt"),
        *("curves.svg", "curves.png", "clicks.svg", "clicks.png"),
        *("sheet-watershed.png", "sheet-flood_factory-make.png", "runs"),
    }
    table = (out / "table.md").read_text()
    assert "| model | data (6) | pooled (6) |" in table
    assert "| flood_factory:make | 1.50 / 1.50 · 0 | 1.50 / 1.50 · 0 |" in table
    assert "| flood_factory:make | 1.50 · 0 | 1.50 · 0 |" in table  # acceptable
    assert "| flood_factory:make | 1.50 | 17 | 0 | 76.4 / 0.0 (0.0) |" in table
    assert "watershed get the object's size" in table
    with (out / "objects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert {line["clicks_to_90"] for line in lines[:6]} == {"1", "2"}
    summary = json.loads((out / "summary.json").read_text())
    first = summary["runs"][0]
    assert first["sets"]["pooled"]["noc"]["90"] == 1.5
    assert first["finished"]
    assert first["settings"]["max_clicks"] == 20
    compared = (out / "compare.md").read_text()
    assert "A = flood_factory:make, B = watershed" in compared
    assert "| NoC@ok | pooled | 6 (3) | 1.500 |" in compared
    assert "| spoilt far, click 1 | pooled | 6 (3) | 0.000 |" in compared
    assert (out / "sheet-watershed.png").stat().st_size > 10_000

    before = (out / "runs" / "watershed" / "rows.jsonl").read_bytes()
    assert call(*arguments).exit_code == 0  # goes on: nothing is left to do
    assert (out / "runs" / "watershed" / "rows.jsonl").read_bytes() == before


def test_the_human_robot_runs_once_per_seed(data, tmp_path):
    out = tmp_path / "report"
    options = ["--robot", "human", "--seed", 1, "--seed", 2, "--spacing", 0.5, 0.5]
    result = call(data, "-o", out, "-s", "flood_factory:make", *options)
    assert result.exit_code == 0, result.output
    spread = (out / "robot.md").read_text()
    summary = json.loads((out / "summary.json").read_text())
    pools = [run["sets"]["pooled"] for run in summary["runs"]]
    noc = [pool["noc_ok"] for pool in pools]
    mean = f"{sum(noc) / 2:.2f} ({min(noc):.2f} to {max(noc):.2f})"
    assert f"| flood_factory:make, human-like robot | 2 | {mean} |" in spread
    table = (out / "table.md").read_text()
    assert "Boundary IoU" in table
    assert "0.00 (0.000 µm)" in table
    assert (out / "runs" / "flood_factory-make-human2" / "rows.jsonl").exists()


def test_actions_are_a_run_of_their_own(data, tmp_path):
    out = tmp_path / "report"
    for options in ([], ["--actions"]):
        assert (
            call(data, "-o", out, "-s", "flood_factory:make", *options).exit_code == 0
        )
    runs = {p.name: read_run(p) for p in (out / "runs").iterdir()}
    only, both = runs["flood_factory-make"], runs["flood_factory-make-actions"]
    assert [r.ious for r in only.rows] == [r.ious for r in both.rows]
    assert {r.actions for r in both.rows} == {("click",), ("click", "click")}
    assert "flood_factory:make, actions" in (out / "table.md").read_text()


def test_a_split_of_sets_is_measured_side_by_side(data, tmp_path):
    for name in ("one", "two"):
        write_images(tmp_path / "sets" / name)
    split = tmp_path / "split.json"
    sides = {"train": ["i0"], "validation": ["i1", "i2"], "test": []}
    split.write_text(json.dumps({"sets": {"one": sides, "two": sides}}))
    result = call(
        *(tmp_path / "sets", "-o", tmp_path / "out", "-s", "flood_factory:make"),
        *("--split", split, "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["flood_factory:make"]
    assert [(s["name"], s["objects"]) for s in found] == [
        ("one", 4),
        ("two", 4),
        ("pooled", 8),
    ]
    with pytest.raises(DatasetError, match="no set three"):
        draw_objects(tmp_path / "sets", split=split, sets=("three",))
    with pytest.raises(DatasetError, match="--ignore is for folder and ome-zarr data"):
        draw_objects(tmp_path / "sets", split=split, ignore_value=255)
    split.write_text("[]")
    with pytest.raises(DatasetError, match="not a split file"):
        draw_objects(tmp_path / "sets", split=split)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the data folder and --output"),
        (["DATA", "-o", "OUT", "--robot", "cat"], "is not one of"),
        (["DATA", "-o", "OUT", "--layout", "odd"], "choose one of auto"),
        (["DATA", "-o", "OUT", "--target", "-3"], "--target"),
        (["DATA", "-o", "OUT", "--robot", "human", "--seed", "-1"], "--seed"),
        (["DATA", "-o", "OUT", "--split", "DATA", "--side", "odd"], "side 'odd' must"),
        (
            ["DATA", "-o", "OUT", "--protocol", "paper-fcfi", "--backbone", "odd"],
            "no backbone 'odd'",
        ),
        (["DATA", "-o", "OUT", "--protocol", "odd"], "no published protocol 'odd'"),
        (["DATA", "-o", "OUT", "--seed", "1"], "add --robot human"),
        (["DATA", "-o", "OUT", "--fields", "1"], "planes of --suggest"),
        (["DATA", "-o", "OUT", "--suggest", "--actions"], "its own robot"),
        (["DATA", "-o", "OUT", "--refinement", "odd"], "refinement 'odd'"),
    ],
)
def test_wrong_usage_is_exit_code_2(data, tmp_path, arguments, message):
    where = {"DATA": data, "OUT": tmp_path / "out"}
    result = call(*(where.get(a, a) for a in arguments))
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_faults_are_the_users_to_mend(data, tmp_path):
    result = call(data, "-o", tmp_path / "out", "-s", "no_such_module:make")
    assert "must be importable" in str(result.exception)
    result = call(tmp_path / "nowhere", "-o", tmp_path / "out", "-s", "watershed")
    assert isinstance(result.exception, DatasetError)


@pytest.mark.parametrize(
    ("folders", "layout"),
    [
        (["data_GT", "boundary_GT"], "grabcut"),
        (["images", "masks"], "berkeley"),
        (["images", "labels"], "folder"),
        (["img", "inst"], "sbd"),
        (["JPEGImages", "SegmentationObject"], "voc"),
    ],
)
def test_layouts_are_recognised(tmp_path, folders, layout):
    for name in folders:
        (tmp_path / name).mkdir()
    assert guess_layout(tmp_path) == layout


def test_layouts_of_two_sets_must_be_named(tmp_path):
    (tmp_path / "gt").mkdir()
    with pytest.raises(DatasetError, match="--layout says which"):
        guess_layout(tmp_path)


def make_run(folder, runs, label="a", **settings):
    rows = tuple(
        ResultRow(
            key=f"s/i{index // 2}#{index}",
            set_name="s",
            image_name=f"i{index // 2}",
            plane=None,
            area_px=50,
            shape=(9, 9),
            clicks=((1, 1, 1),) * len(ious),
            ious=tuple(ious),
            error_px=tuple(100 - round(100 * v) for v in ious),
            seconds=(0.1,) * len(ious),
            surface_dices=(0.0,) * len(ious),
            mended_px=(1,) * len(ious),
            spoilt_px=(1,) * len(ious),
            spoilt_far_px=(0,) * len(ious),
        )
        for index, ious in enumerate(runs)
    )
    order = tuple(row.key for row in rows)
    return Run(folder, label, RunSettings(**settings), order, rows, {})


def test_a_clear_difference_is_significant_and_none_is_not(tmp_path):
    rng = np.random.default_rng(0)
    slow = [[0.5] * int(n) + [0.95] for n in rng.integers(5, 12, 40)]
    fast = [run[3:] for run in slow]
    a, b = make_run(tmp_path / "a", slow), make_run(tmp_path / "b", fast)
    found = {d.measure: d for d in compare_runs(a, b, resamples=500)}
    noc = found["NoC@90"]
    assert noc.difference == pytest.approx(-3)
    assert (noc.low, noc.high) == (pytest.approx(-3), pytest.approx(-3))
    assert noc.verdict == "B better"
    assert (noc.objects, noc.images) == (40, 20)
    reverse = {d.measure: d for d in compare_runs(b, a, resamples=500)}
    assert reverse["NoC@90"].verdict == "A better"
    same = compare_runs(a, a, resamples=500)
    assert {d.verdict for d in same} == {"not significant"}


def test_a_chance_difference_is_not_significant(tmp_path):
    rng = np.random.default_rng(1)
    runs = [[[0.5] * int(n) + [0.95] for n in rng.integers(1, 18, 40)] for _ in "ab"]
    a, b = (make_run(tmp_path / "x", run) for run in runs)
    noc = {d.measure: d for d in compare_runs(a, b, resamples=2000)}["NoC@90"]
    assert noc.low < 0 < noc.high
    assert noc.verdict == "not significant"
    expected = np.mean(
        [
            scores.clicks_to(y.ious, 0.9) - scores.clicks_to(x.ious, 0.9)
            for x, y in zip(a.rows, b.rows, strict=True)
        ]
    )
    assert noc.difference == pytest.approx(expected)


def test_only_paired_objects_of_equal_robots_are_compared(tmp_path):
    a = make_run(tmp_path / "a", [[0.95]] * 4)
    part = replace(a, rows=a.rows[:2])
    assert compare_runs(a, part, resamples=50)[0].objects == 2
    with pytest.raises(DatasetError, match="no object in common"):
        compare_runs(a, replace(a, rows=()))
    with pytest.raises(DatasetError, match="max_clicks"):
        compare_runs(a, make_run(tmp_path / "b", [[0.95]] * 4, max_clicks=9))


def test_few_images_are_said_to_be_few(tmp_path):
    slow = make_run(tmp_path / "a", [[0.5, 0.95], [0.5, 0.5, 0.95]])
    fast = make_run(tmp_path / "b", [[0.95], [0.95]])
    noc = {d.measure: d for d in compare_runs(slow, fast, resamples=500)}["NoC@90"]
    assert (noc.low, noc.high) == (-2, -1)  # one image: its objects are resampled
    assert noc.verdict == "B better on these 1 images"


def test_resamples_draw_images_first():
    values = np.array([1.0, 1.0, 5.0, 5.0])
    means = bootstrap_means(values, ["x", "x", "y", "y"], np.random.default_rng(0), 400)
    assert set(means) == {1.0, 3.0, 5.0}
    assert math.isclose(means.mean(), 3.0, abs_tol=0.3)


def test_the_worst_objects_come_first(tmp_path):
    run = make_run(tmp_path, [[0.95], [0.3] * 20, [0.2] * 20, [0.5, 0.93]])
    assert [row.ious[-1] for row in rank_rows(run.rows, run)] == [0.2, 0.3, 0.93, 0.95]
    # an acceptable outline counts, even if the robot went on to an IoU of 0.90
    close = [replace(run.rows[3], surface_dices=(0.5, 0.5))]
    close += [replace(run.rows[1], key="close", ious=(0.8, 0.85), surface_dices=(1, 1))]
    assert [row.ious[0] for row in rank_rows(close, run)] == [0.5, 0.8]


def test_the_command_compares_finished_runs(data, tmp_path):
    for name in ("flood_factory:make", "watershed"):
        assert call(data, "-o", tmp_path / name[:5], "-s", name).exit_code == 0
    result = call("--compare", tmp_path / "flood", tmp_path / "water")
    assert result.exit_code == 0, result.output
    assert "| NoC@90 | pooled | 6 (3) |" in result.output
    result = call("--compare", tmp_path / "flood", tmp_path / "water", "--json")
    assert json.loads(result.stdout)[0]["group"] == "pooled"
    result = call("--compare", tmp_path, tmp_path)
    assert isinstance(result.exception, DatasetError)
    assert read_run(tmp_path / "flood" / "runs" / "flood_factory-make").is_finished
