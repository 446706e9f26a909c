"""Scripts that import former module paths find them, with a warning."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from napari_cfrseg.former_paths import NEW_PLACES

FORMER = {
    "napari_cfrseg.export.formats": ("write_geojson", "write_geojson"),
    "napari_cfrseg.session.imports": ("events_from_csv", "events_from_csv"),
    "napari_cfrseg.session.summary": ("summarise", "objects_after"),
}


@pytest.mark.parametrize("former", sorted(NEW_PLACES))
def test_a_former_module_hands_out_names_of_its_new_place(former: str) -> None:
    (before, now), place = FORMER[former], NEW_PLACES[former]
    sys.modules.pop(former, None)  # it warns at its first import only
    with pytest.warns(DeprecationWarning, match=f"{former} is now {place}"):
        module = import_module(former)
    assert getattr(module, before) is getattr(import_module(place), now)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_a_module_that_never_was_is_not_found() -> None:
    for name in ("napari_cfrseg.nothing", "napari_cfrseg.session.nothing"):
        with pytest.raises(ModuleNotFoundError):
            import_module(name)
