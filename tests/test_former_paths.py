"""Scripts written for the version before find their modules, with a warning."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import cfrseg_training
from napari_cfrseg.former_paths import NEW_PLACES, RENAMED

#: names that the documentation of 0.1.0 imported, and where from
DOCUMENTED = {
    "napari_cfrseg.engine.events": ["ClickAdded", "ObjectCreated"],
    "napari_cfrseg.engine.masks": ["MaskPatch"],
    "napari_cfrseg.engine.propagation": ["SegmenterPlanes", "Track", "propagate"],
    "napari_cfrseg.evaluation.micrographs": ["micro_objects"],
    "napari_cfrseg.evaluation.objects": ["BenchmarkObject"],
    "napari_cfrseg.evaluation.robot": ["ExactRobot"],
    "napari_cfrseg.export.formats": ["write_geojson", "write_coco"],
    "napari_cfrseg.session.annotate": ["RecordedAnnotator"],
    "napari_cfrseg.session.imports": ["events_from_csv", "events_from_labels"],
    "napari_cfrseg.session.models": ["model_reference"],
    "napari_cfrseg.session.pixels": ["reference_of"],
    "napari_cfrseg.session.summary": ["summarise"],
    "napari_cfrseg.session.values": ["SessionContent"],
    "napari_cfrseg.session.writer": ["SessionWriter"],
    "cfrseg_training.data": ["DataRequest", "read_data"],
}


def first_import(name: str) -> object:
    """Import a module as a fresh process does: it warns at its first import only."""
    sys.modules.pop(name, None)
    return import_module(name)


@pytest.mark.parametrize("former", sorted(NEW_PLACES))
def test_a_former_module_names_its_new_place(former: str) -> None:
    places = NEW_PLACES[former]
    with pytest.warns(DeprecationWarning, match=rf"{former} is now {places[0]}"):
        module = first_import(former)
    for place in places:
        import_module(place)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(("former", "names"), DOCUMENTED.items())
def test_documented_names_are_the_ones_of_the_new_place(
    former: str, names: list[str]
) -> None:
    with pytest.warns(DeprecationWarning, match="is now"):
        module = first_import(former)
    for name in names:
        wanted = RENAMED.get((former, name), name)
        places = [import_module(place) for place in NEW_PLACES[former]]
        assert getattr(module, name) in [getattr(p, wanted, None) for p in places]


def test_a_module_that_never_was_is_not_found() -> None:
    assert cfrseg_training.__name__ not in NEW_PLACES
    for name in ("napari_cfrseg.nothing", "napari_cfrseg.session.nothing"):
        with pytest.raises(ModuleNotFoundError):
            import_module(name)
