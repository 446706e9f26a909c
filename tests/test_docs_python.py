"""The Python blocks of the README and the documentation run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import napari_cfrseg

ROOT = Path(__file__).parents[1]
#: docs/sessions.md has a test of its own, with the session files it names
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.name != "sessions.md" and "```python\n" in page.read_text("utf-8")
]


def disks(planes: int) -> np.ndarray:
    """A (Z, Y, X) stack of one bright, drifting disk."""
    rows, columns = np.ogrid[:128, :128]
    return np.stack(
        [
            40 + 150 * ((rows - 60 - z / 4) ** 2 + (columns - 64) ** 2 < 20**2)
            for z in range(planes)
        ]
    ).astype(np.uint8)


def names_given() -> dict[str, object]:
    """Names that the examples of a page may use."""
    stack = disks(16)
    return {"stack": stack, "mask4": stack[4] > 100, "mask12": stack[12] > 100}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path) -> None:
    names = names_given()
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


def test_the_pages_have_blocks() -> None:
    assert {page.name for page in PAGES} >= {"README.md", "evaluation.md", "stacks.md"}


def test_every_public_name_is_there() -> None:
    for name in napari_cfrseg.__all__:
        assert getattr(napari_cfrseg, name) is not None
    with pytest.raises(AttributeError, match="Nonsense"):
        napari_cfrseg.Nonsense  # noqa: B018
