"""Load models in the window: on the best device, by the program that is faster.

Torch is imported when a model is loaded, not before.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from napari_cfrseg.annotation.rounds import SegmenterLike

DEFAULT_MODEL = "default"
#: Environment variable: what computes in the window: auto, torch or openvino.
BACKEND_VARIABLE = "CFRSEG_BACKEND"
_PREPARE = """\
import os
getattr(os, "nice", int)(10)
from napari_cfrseg.cli import main
main()
"""
#: processes that prepare models, by model
_preparing: dict[str, subprocess.Popen[bytes]] = {}

SegmenterLoader = Callable[[str], SegmenterLike]


def load_segmenter(
    name: str, device: str = "auto", precision: str = "float32"
) -> SegmenterLike:
    """Load a model by name or path (imports torch); DeviceError without the device.

    ``device`` and ``precision`` are as for ``Segmenter.load``.
    """
    wait_passively()
    import_triton_apart()
    load_torch_apart()
    from napari_cfrseg.engine.segmenter import Segmenter

    backend = os.environ.get(BACKEND_VARIABLE) or "auto"
    segmenter = Segmenter.load(name, device, precision=precision, backend=backend)  # type: ignore[arg-type]  # checked there
    segmenter.notices.warns = False  # the dock shows them
    if segmenter.placement.can_prepare:
        _prepare_apart(name)
    return segmenter


class ShortCollections:
    """Keeps Python's garbage collector from stopping the window between clicks.

    napari and torch are 700,000 objects that live as long as the process; looking
    through them takes half a second, and a full collection falls on some click among
    a few hundred. From a model's loading on, and again after each full collection,
    what has lived so far is set aside (``gc.freeze``), so collections look at newer
    objects only. The collector stays on, and :meth:`thaw` gives it everything back.
    """

    def __init__(self) -> None:
        gc.callbacks.append(self._collected)
        # at Python's end, libraries complain about what is never collected
        atexit.register(self.close)

    def freeze(self) -> None:
        """Set aside what there is now; a model was loaded."""
        if self._collected in gc.callbacks:
            gc.freeze()

    def thaw(self) -> None:
        """Let the next full collection look at everything: layers were removed."""
        gc.unfreeze()

    def close(self) -> None:
        """Leave the collector as it was."""
        atexit.unregister(self.close)
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)
        gc.unfreeze()

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()


def _prepare_apart(name: str) -> None:
    """Prepare the faster program for the next start, in a process of its own."""
    if name in _preparing:
        return
    with suppress(OSError):
        _preparing[name] = subprocess.Popen(
            [sys.executable, "-c", _PREPARE, "models", "prepare", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )


def wait_passively() -> None:
    """Let torch's threads sleep while they wait, unless the environment says otherwise.

    Spinning threads cost far more than they save on a busy machine. OpenMP reads the
    variable once, when torch is loaded; after that it is left alone.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def import_triton_apart() -> None:
    """Let triton, which torch brings on Linux, see only its own LLVM when imported.

    libtriton exports its LLVM's symbols. In a window whose OpenGL is Mesa's, another
    LLVM (libLLVM) is loaded globally; bound to that one, libtriton crashes the process
    while it is imported (tensorflow/tensorflow#124205 describes the clash). It takes
    70 MB, and not every session's torch needs it: it is not imported here.
    """
    if hasattr(os, "RTLD_DEEPBIND") and not any(
        isinstance(finder, _TritonFinder) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _TritonFinder())


class _TritonFinder(MetaPathFinder):
    """Finds libtriton, to be loaded with its own symbols first."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return None for all other modules."""
        if fullname != "triton._C.libtriton":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            spec.loader = _ApartLoader(spec.loader.name, spec.loader.path)
        return spec


class _ApartLoader(ExtensionFileLoader):
    """Loads a library whose symbols are looked up in itself first."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Load the library."""
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        try:
            return super().create_module(spec)
        finally:
            sys.setdlopenflags(flags)


def load_torch_apart() -> None:
    """Load torch's libraries while the window goes on; importing it is faster then.

    An import holds Python's interpreter while the system loads a library, for torch a
    second or more; a call of the system's own ``dlopen`` does not. Where that fails,
    the import loads them.
    """
    torch = None if "torch" in sys.modules else find_spec("torch")
    if os.name != "posix" or torch is None or torch.origin is None:
        return
    name = "libtorch.dylib" if sys.platform == "darwin" else "libtorch.so"
    with suppress(OSError, AttributeError):
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
        dlopen.restype = ctypes.c_void_p
        dlopen(os.fsencode(Path(torch.origin).parent / "lib" / name), os.RTLD_NOW)
