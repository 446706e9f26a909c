"""The examples of docs/sessions.md run, and what it says of the file is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from session_cases import SHAPE, pixels, record_with, save_model

from napari_cfrseg.session import format as schema
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    models.mkdir()
    model = save_model(models, name="default")  # hides the one that is shipped
    monkeypatch.setenv("CFRSEG_MODELS", str(models))
    expected, _ = record_with(model, tmp_path, "cells")
    masks = np.zeros(SHAPE, np.uint16)
    masks[10:30, 10:30] = 7
    tifffile.imwrite(tmp_path / "masks.tif", masks)
    assert np.array_equal(tifffile.imread(tmp_path / "cells.tif"), pixels())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 2
    assert np.array_equal(names["labels"], expected)
    made = Session.open(tmp_path / "to_correct.cfrseg.json")
    assert [o.object_id for o in made.objects()] == [7, 1000]
    assert np.array_equal(made.apply() == 7, masks == 7)


def test_the_page_names_what_there_is() -> None:
    text = PAGE.read_text("utf-8")
    assert f"`schema_version` is {schema.SCHEMA_VERSION}" in text
    for ending in set(FORMATS) - {".tif"}:
        assert f"`{ending}`" in text
