"""The commands write and print the results of the Python API."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from replayed import replay
from typer.testing import CliRunner

from napari_cfrseg import Click, Refinement, Segmenter
from napari_cfrseg.cli import app
from napari_cfrseg.io.images import open_image
from napari_cfrseg.samples import load_demo, load_sample
from napari_cfrseg.session.imported_events import events_from_csv


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "powder.tif"
    tifffile.imwrite(path, load_sample("powder_sem").image)
    return path


def test_segment_writes_the_mask_of_the_api(
    tmp_path: Path, image_path: Path, random_model: Path
) -> None:
    output = tmp_path / "mask.tif"
    printed = run(
        *("segment", image_path, "-c", "289,197,+", "-c", "300,100,-", "-o", output),
        *("--model", random_model, "--device", "cpu", "--json"),
    )
    segmenter = Segmenter.load(random_model, device="cpu")
    segmenter.set_image(load_sample("powder_sem").image)
    clicks = [Click((289, 197)), Click((300, 100), is_positive=False)]
    expected = segmenter.predict(clicks, refinement=Refinement.adaptive(4)).mask
    written = tifffile.imread(output)
    np.testing.assert_array_equal(written, expected.astype(np.uint16))
    said = json.loads(printed)
    assert said["output"] == str(output)
    assert said["area_px"] == np.count_nonzero(expected)
    assert written[289, 197] == 1
    assert written[300, 100] == 0


def test_segment_says_that_a_click_was_too_far_away(
    tmp_path: Path, image_path: Path
) -> None:
    clicks = "-c", "289,197,+", "-c", "5,5,-"
    output = str(tmp_path / "mask.tif")
    done = CliRunner().invoke(app, ["segment", str(image_path), *clicks, "-o", output])
    assert "1 negative click too far from the object to change it" in done.stderr


def test_segment_writes_another_candidate_of_the_first_click(
    tmp_path: Path, image_path: Path
) -> None:
    clicks = [Click((289, 197)), Click((300, 100), is_positive=False)]
    segmenter = Segmenter.load("default", device="cpu")
    segmenter.set_image(load_sample("powder_sem").image)
    first = segmenter.predict(clicks[:1])
    count = len(first.candidates)
    common = ("segment", image_path, "-c", "289,197,+", "-c", "300,100,-", "--json")
    for number, candidate in enumerate(first.candidates, start=1):
        output = tmp_path / f"{number}.tif"
        printed = run(*common, "--candidate", number, "-o", output)
        assert json.loads(printed)["candidates"] == count
        expected = segmenter.predict(clicks, previous=candidate).mask
        np.testing.assert_array_equal(tifffile.imread(output), expected)
    with pytest.raises(AssertionError, match=f"{count} different masks"):
        run(*common, "--candidate", count + 1, "-o", tmp_path / "none.tif")


def test_segment_applies_a_table_of_clicks_on_all_planes(
    tmp_path: Path, random_model: Path
) -> None:
    rows, columns = np.ogrid[:96, :96]
    disc = np.where((rows - 40) ** 2 + (columns - 50) ** 2 < 15**2, 200, 20)
    stack = np.stack([disc, np.roll(disc, 9, 0), disc[::-1]]).astype(np.uint8)
    path, table = tmp_path / "stack.tif", tmp_path / "clicks.csv"
    voxels = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, stack, imagej=True, metadata=voxels, resolution=(4, 4))
    table.write_text("z,y,x,object,sign\n0,40,50,7,+\n0,70,50,7,-\n1,49,50,cell,+\n")
    common = ("--table", table, "--model", random_model, "--device", "cpu")
    output = tmp_path / "out.tif"
    said = json.loads(run("segment", path, *common, "-o", output, "--json"))
    segmenter = Segmenter.load(random_model, device="cpu")
    expected = replay(events_from_csv(table), stack, segmenter)
    assert expected[0].any()
    np.testing.assert_array_equal(tifffile.imread(output), expected)
    named = [(o["object"], o["name"], o["clicks"]) for o in said["objects"]]
    assert named == [(1, "cell", 1), (7, "Object 7", 2)]
    with tifffile.TiffFile(output) as file:
        assert 'PhysicalSizeZ="2.0"' in (file.ome_metadata or "")
    far = tmp_path / "far.csv"
    far.write_text("z,y,x\n0,40,50\n0,96,50\n")
    table.write_text("z,y,x\n3,40,50\n")
    for wrong, line in (
        (("--table", far), "lies outside"),
        (("--table", table), "event 1 is on plane (3,)"),
        (("--table", table, "--plane", "0"), "the table says the planes"),
        (("--table", table, "-c", "1,1,+"), "give clicks, or a table"),
        (("--table", tmp_path / "none.csv"), "no such table"),
    ):
        done = CliRunner().invoke(app, ["segment", str(path), *map(str, wrong)])
        assert done.exit_code in (1, 2)
        assert line in done.stderr


@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_segment_on_a_huge_plane_holds_no_whole_plane(
    tmp_path: Path, ending: str
) -> None:
    """A mask of a slide was an array of the whole slide, 19 GB and its copies."""
    path, side = tmp_path / "field.zarr", 30_000
    field = zarr.create_array(path, shape=(side, side), chunks=(512, 512), dtype="u1")
    rows, columns = np.ogrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 < 40**2
    field[20_000:20_200, 9_000:9_200] = np.where(disc, 200, 20)
    output = tmp_path / f"mask{ending}"
    tracemalloc.start()
    printed = run(
        *("segment", path, "-c", "20100,9100,+", "-o", output, "--device", "cpu"),
        "--json",
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < side**2 / 2
    mask = open_image(output).array
    assert mask.shape == (side, side)
    part = np.asarray(mask[20_000:20_200, 9_000:9_200]) > 0
    said = json.loads(printed)
    assert said["area_px"] == part.sum()
    assert part[100, 100]
    y0, x0, y1, x1 = said["box"]
    assert part[y0 - 20_000 : y1 - 20_000, x0 - 9_000 : x1 - 9_000].sum() == part.sum()


def test_segment_to_png_and_on_a_plane_of_a_stack(
    tmp_path: Path, random_model: Path
) -> None:
    image = load_sample("powder_sem").image[:256, :256]
    path = tmp_path / "stack.tif"
    stack = np.stack([np.zeros_like(image), image])
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"})
    common = ("-c", "80,60,+", "--model", random_model, "--device", "cpu")
    run("segment", path, "--plane", 1, *common, "-o", tmp_path / "plane.png")
    picture = tmp_path / "image.png"
    Image.fromarray(image).save(picture)
    run("segment", picture, *common, "-o", tmp_path / "picture.png")
    from_stack = np.asarray(Image.open(tmp_path / "plane.png"))
    from_picture = np.asarray(Image.open(tmp_path / "picture.png"))
    np.testing.assert_array_equal(from_stack, from_picture)
    assert from_stack[80, 60] == 255


@pytest.mark.parametrize("refinement", ["standard", "CFR-2", "a-cfr-3"])
def test_segment_takes_every_refinement(
    tmp_path: Path, image_path: Path, random_model: Path, refinement: str
) -> None:
    said = json.loads(
        run(
            *("segment", image_path, "-c", "289,197", "-o", tmp_path / "m.tif"),
            *("--model", random_model, "--device", "cpu", "--json"),
            *("--refinement", refinement),
        )
    )
    steps = said["steps"]
    assert {"standard": steps == 1, "CFR-2": steps == 3, "a-cfr-3": 1 < steps <= 4}[
        refinement
    ]


def test_unknown_refinement_and_model(image_path: Path, tmp_path: Path) -> None:
    arguments = ["segment", str(image_path), "-c", "9,9", "-o", str(tmp_path / "m.tif")]
    wrong = CliRunner().invoke(app, [*arguments, "--refinement", "magic"])
    assert wrong.exit_code == 2
    assert "CFR-n" in wrong.output
    absent = CliRunner().invoke(app, [*arguments, "--model", "absent"])
    assert absent.exit_code == 1
    assert "no model is called 'absent'" in absent.output


def test_headless_demo_writes_labels_overlay_and_one_line_per_object(
    tmp_path: Path, random_model: Path
) -> None:
    out = tmp_path / "out"
    printed = run(
        *("demo", "--headless", out, "--model", random_model, "--device", "cpu")
    )
    demo = load_demo()
    sample = load_sample(demo.sample)
    labels = tifffile.imread(out / "labels.tif")
    assert labels.shape == sample.labels.shape
    lines = [line for line in printed.splitlines() if line.startswith("object ")]
    assert len(lines) == len(demo.objects)
    for number, (line, clicks) in enumerate(
        zip(lines, demo.objects, strict=True), start=1
    ):
        mask = labels == number
        truth = sample.labels == sample.labels[clicks[0].pixel]
        iou = (mask & truth).sum() / (mask | truth).sum()
        assert line.endswith(f"IoU {iou:.3f}")
        assert f"{mask.sum()} px" in line
    overlay = np.asarray(Image.open(out / "overlay.png"))
    assert overlay.shape == (*sample.labels.shape, 3)
    assert sorted(p.name for p in out.iterdir()) == ["labels.tif", "overlay.png"]
    assert sample.licence in printed


def test_models_are_listed_and_described(
    monkeypatch: pytest.MonkeyPatch, random_model: Path
) -> None:
    monkeypatch.setenv("CFRSEG_MODELS", str(random_model.parent))
    rows = {row["name"]: row for row in json.loads(run("models", "list", "--json"))}
    assert rows["random"]["path"] == str(random_model)
    assert "random\t" in run("models", "list")
    info = run("models", "info", "random")
    assert "licence: BSD-3-Clause" in info
    assert "noc90 20.0" in info
    said = json.loads(run("models", "info", random_model, "--json"))
    assert said["seed"] == 0
    assert said["commit"] is None


def test_bench_times_every_click_size_and_refinement(random_model: Path) -> None:
    common = ("--objects", 1, "--model", random_model, "--device", "cpu")
    printed = run("bench", "--sizes", "96,128", *common, "--json")
    rows = json.loads(printed.splitlines()[-1])
    seen = {(row["side_px"], row["click"], row["refinement"]) for row in rows}
    assert len(seen) == len(rows) == 2 * 2 * 3
    assert {side for side, _, _ in seen} == {96, 128}
    for row in rows:
        assert row["median_ms"] > 0
        expected = {"standard": 1, "CFR-4": 5}.get(row["refinement"])
        assert expected is None or row["mean_steps"] == expected
    table = run("bench", "--sizes", "64", *common)
    assert "refinement" in table
    assert "cpu: as asked for" in table
    assert table.count("A-CFR-4") == 2


@pytest.mark.parametrize("sizes", ["", "big", "512,,2", "32"])
def test_bench_refuses_sizes_that_are_none(sizes: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--sizes", sizes])
    assert result.exit_code == 2
    assert "--sizes" in result.output


def test_bench_refuses_a_program_it_does_not_know() -> None:
    result = CliRunner().invoke(app, ["bench", "--sizes", "64", "--backend", "onnx"])
    assert result.exit_code == 2
    assert "--backend" in result.output


def test_the_demo_with_the_shipped_model_marks_the_objects_it_clicks(
    tmp_path: Path,
) -> None:
    printed = run("demo", "--headless", tmp_path, "--device", "cpu")
    lines = [line for line in printed.splitlines() if line.startswith("object ")]
    ious = [float(line.rpartition(" ")[2]) for line in lines]
    assert len(ious) == len(load_demo().objects)
    assert min(ious) > 0.5
    assert sum(ious) / len(ious) > 0.75
