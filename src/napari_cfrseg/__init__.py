"""Click on an object in a micrograph and get its mask."""

from __future__ import annotations

__version__ = "0.1.0"
