"""``cfrseg propagate`` writes what the engine computes, and says how sure it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from replayed import replay
from typer.testing import CliRunner

from napari_cfrseg import Segmenter
from napari_cfrseg.annotation import events as ev
from napari_cfrseg.cli import app, options
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import write_ome_zarr


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    y, x = np.mgrid[:64, :64]
    planes = [np.where(np.hypot(y - 30 - z, x - 30) < 12, 150, 20) for z in range(5)]
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack(planes).astype(np.uint8), metadata={"axes": "ZYX"})
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_labels_of_the_engine(
    stack: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "LOG_EVERY_S", 0.0)
    output = stack.with_name("out.tif")
    result = invoke(
        *("propagate", stack, "-c", "2,32,30,+", "--voxel", "2,0.5,0.5", "-o", output),
        *("--model", random_model, "--device", "cpu", "--json"),
    )
    assert result.exit_code == 0, result.output
    events = [
        ev.ObjectCreated(1),
        ev.ClickAdded(1, (2,), (32, 30), True, 1),
        ev.Propagated((1,), (0,), 0, 0, 4, 5, (2.0, 0.5, 0.5)),
    ]
    segmenter = Segmenter.load(random_model, device="cpu")
    expected = replay(events, tifffile.imread(stack), segmenter)
    np.testing.assert_array_equal(tifffile.imread(output), expected)
    planes = json.loads(result.stdout)["planes"]
    assert "propagating, planes: 1/4" in result.stderr
    annotated = [p for p in planes if p["annotated"]]
    assert [p["plane"] for p in annotated] == [2]
    assert all(0 <= p["confidence"] <= 1 for p in planes if not p["annotated"])


def test_planes_outside_the_range_stay_empty(stack: Path, random_model: Path) -> None:
    output = stack.with_name("out.tif")
    result = invoke(
        *("propagate", stack, "-c", "1,32,30,+", "--first", "3", "-o", output),
        *("--spans", "--model", random_model, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert tifffile.imread(output).any((1, 2)).tolist() == [0, 1, 0, 1, 1]


def test_across_y_the_planes_are_orthogonal_views(
    stack: Path, random_model: Path
) -> None:
    output = stack.with_name("out.tif")
    result = invoke(
        *("propagate", stack, "-c", "2,32,30,+", "--voxel", "2,0.5,1", "-o", output),
        *("--along", "y", "--first", "30", "--last", "34"),
        *("--model", random_model, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    events = [
        ev.ObjectCreated(1),
        ev.ClickAdded(1, (32,), (2, 30), True, 1),
        ev.Propagated((1,), (0,), 0, 30, 34, 64, (0.5, 2.0, 1.0)),
    ]
    turned = np.moveaxis(tifffile.imread(stack), 1, 0)
    expected = replay(events, turned, Segmenter.load(random_model, device="cpu"))
    found = tifffile.imread(output)
    assert found.shape == (5, 64, 64)
    np.testing.assert_array_equal(np.moveaxis(found, 1, 0), expected)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-c", "9,1,1,+"), 2, "plane 9"),
        (("-c", "1,1,+"), 2, "is not"),
        (("-c", "2,32,30,+", "--voxel", "1,0,1"), 2, "positive"),
        (("-c", "2,32,30,+", "--first", "4", "--last", "2"), 2, "no such range"),
    ],
)
def test_refused(stack: Path, random_model: Path, arguments, code, said) -> None:
    result = invoke("propagate", stack, "--model", random_model, *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.output.split())


def test_axes_of_any_name(stack: Path, random_model: Path) -> None:
    image = stack.with_suffix(".zarr")
    write_ome_zarr(image, tifffile.imread(stack), axes=("depth", "y", "x"))
    table = stack.with_suffix(".csv")
    table.write_text("axis_0,y,x\n2,32,30\n")
    model = ("--model", random_model, "--device", "cpu")
    for command in (("propagate", "-c", "2,32,30,+"), ("segment", "--table", table)):
        output = stack.with_name(f"{command[0]}.zarr")
        result = invoke(command[0], image, *command[1:], "-o", output, *model)
        assert result.exit_code == 0, result.output
        assert open_image(output).axes == ("depth", "y", "x")
