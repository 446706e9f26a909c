"""Images on S3, as a local server of the same kind answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from served import bucket

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.images import open_image

PIXELS = np.random.default_rng(0).integers(0, 200, (300, 260), np.uint16)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "served"
    folder.mkdir()
    options = {"tile": (128, 128), "compression": "zlib"}
    tifffile.imwrite(folder / "a.tif", PIXELS, metadata={"axes": "YX"}, **options)
    zarr.create_array(str(folder / "a.zarr"), data=PIXELS, chunks=(128, 128))
    with bucket(folder, monkeypatch) as found:
        yield found


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_images_are_read_and_what_is_wrong_is_one_line(address, name, monkeypatch):
    import s3fs

    def said(where: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ImageError) as caught:
            open_image(Path(where))
        return str(caught.value)

    found = open_image(Path(f"{address}/{name}")).array
    assert np.array_equal(np.asarray(found[:300, :260]), PIXELS)
    missing = said(f"{address}/none{Path(name).suffix}")
    assert missing.endswith(": there is no such file on the server")
    if name == "a.tif":
        assert "there is no such bucket: check" in said(f"s3://nobody/{name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "no server answers there: check" in said(f"{address}/{name}")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    assert "set AWS_ACCESS_KEY_ID and" in said(f"{address}/{name}")
