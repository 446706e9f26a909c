"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import napari_cfrseg

MODULES = [
    info.name
    for info in pkgutil.walk_packages(
        napari_cfrseg.__path__, "napari_cfrseg.", onerror=lambda _: None
    )
    if not info.name.startswith("napari_cfrseg.gui")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        example
        for name in MODULES
        for test in finder.find(import_module(name))
        for example in test.examples
    ]
    assert len(examples) >= 5
