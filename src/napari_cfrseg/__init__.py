"""Click on an object in a micrograph and get its mask.

The public names stand in ``__init__.pyi`` and are imported when they are first used:
importing the package loads neither torch nor Qt.
"""

from __future__ import annotations

import lazy_loader

from napari_cfrseg.former_paths import install

install()
__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
