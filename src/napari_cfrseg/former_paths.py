"""Former module paths that scripts import: found still, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

#: a former module: where its names are now
NEW_PLACES = {
    "napari_cfrseg.export.formats": "napari_cfrseg.io.object_exports",
    "napari_cfrseg.session.imports": "napari_cfrseg.session.imported_events",
    "napari_cfrseg.session.summary": "napari_cfrseg.session.session",
}
#: names that changed
RENAMED = {"summarise": "objects_after"}


class FormerPaths(MetaPathFinder, Loader):
    """Imports former modules; asked last, where no module of this name exists."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return how a former module or package is imported, None for all others."""
        is_package = any(name.startswith(f"{fullname}.") for name in NEW_PLACES)
        if not is_package and fullname not in NEW_PLACES:
            return None
        return spec_from_loader(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let the module hand out names from their new place."""
        former = module.__name__
        if former not in NEW_PLACES:
            return
        place = NEW_PLACES[former]
        msg = f"{former} is now {place}; this path ends with 0.3"
        warnings.warn(msg, DeprecationWarning, stacklevel=2)

        def look(name: str) -> Any:
            return getattr(import_module(place), RENAMED.get(name, name))

        module.__dict__["__getattr__"] = look


def install() -> None:
    """Find former modules from now on."""
    if not any(isinstance(finder, FormerPaths) for finder in sys.meta_path):
        sys.meta_path.append(FormerPaths())
