"""Models the dock offers. Imports torch only when one is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from napari_cfrseg.annotation.rounds import SegmenterLike

DEFAULT_MODEL = "default"

SegmenterLoader = Callable[[str], SegmenterLike]


def load_segmenter(name: str) -> SegmenterLike:
    """Load a model by name or path on the best device there is (imports torch)."""
    wait_passively()
    import_triton_apart()
    from napari_cfrseg.engine.segmenter import Segmenter

    return Segmenter.load(name, device="auto")


def wait_passively() -> None:
    """Let torch's threads sleep while they wait, unless somebody chose otherwise.

    Threads that spin cost far more than they save on a busy machine. OpenMP reads the
    variable once, when torch loads: once that has happened it is left alone.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def import_triton_apart() -> None:
    """Import triton, which torch brings on Linux, so that it sees its own LLVM only.

    libtriton exports its LLVM's symbols. In a window whose OpenGL is Mesa's, another
    LLVM (libLLVM) is loaded globally; bound to that one, libtriton crashes the process
    while it is imported (tensorflow/tensorflow#124205 describes the clash).
    """
    deep = getattr(os, "RTLD_DEEPBIND", None)
    if deep is None or "triton" in sys.modules or find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | deep)
    try:
        import_module("triton")
    except ImportError:
        return  # torch does without
    finally:
        sys.setdlopenflags(flags)


def installed_models() -> tuple[str, ...]:
    """Return the names of the models there are (imports torch)."""
    from napari_cfrseg.model.weights_file import list_models

    return tuple(list_models())
