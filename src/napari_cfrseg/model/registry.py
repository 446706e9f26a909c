"""Every network by name, and every network again from its own description.

``build`` is the one way from a description (what ``architecture()`` returns and a
checkpoint keeps) to a network; ``named`` turns a name into such a description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.model.catalogue import TIMM_PREFIX, NamedNetwork, named, names
from napari_cfrseg.model.network import ClickNetwork

__all__ = [
    "NamedNetwork",
    "build",
    "complete",
    "configure",
    "name_of",
    "named",
    "names",
]

# family -> module, configuration class, network class
_FAMILIES = {
    "cfrnet": ("default", "CfrNetConfig", "CfrNet"),
    "hrnet": ("hrnet", "HRNetConfig", "HRNetClicks"),
    "deeplab": ("deeplab", "DeepLabConfig", "DeepLabClicks"),
    "plain_vit": ("plain_vit", "PlainViTConfig", "PlainViTClicks"),
    "timm_fcfi": ("timm_fcfi", "TimmFcfiConfig", "TimmFcfi"),
}


def name_of(architecture: Mapping[str, Any]) -> str | None:
    """Return the name of a description, or None if it has none."""
    for name in names():
        entry = named(name)
        family = entry.architecture["family"]
        same = family == architecture.get("family")
        if same and configure(entry.architecture) == configure(architecture):
            return entry.name
    if architecture.get("family") == "timm_fcfi":
        return f"{TIMM_PREFIX}{architecture['backbone']}"
    return None


def configure(architecture: Mapping[str, Any]) -> Any:
    """Turn a description into its family's configuration.

    Raises
    ------
    CheckpointError
        If the family or a setting is unknown here: the file is from a newer version.
    """
    family = architecture.get("family")
    if family not in _FAMILIES:
        msg = f"unknown network family {family!r}; known: {', '.join(_FAMILIES)}"
        raise CheckpointError(msg)
    module, config_name, _ = _FAMILIES[family]
    config_class = getattr(import_module(f"napari_cfrseg.model.{module}"), config_name)
    known = {field.name for field in fields(config_class)}
    given = {key: value for key, value in architecture.items() if key != "family"}
    if unknown := sorted(given.keys() - known):
        msg = (
            f"family {family!r} has no setting {', '.join(unknown)}; "
            "the file may need a newer napari-cfrseg"
        )
        raise CheckpointError(msg)
    # JSON has lists only; the configurations are hashable
    return config_class(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    )


def complete(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with every setting, so that later defaults cannot move it.

    Raises
    ------
    CheckpointError
        If the family or a setting is unknown here.
    """
    return {"family": architecture["family"], **asdict(configure(architecture))}


def build(architecture: Mapping[str, Any]) -> ClickNetwork:
    """Build a network with fresh weights from its description.

    Parameters
    ----------
    architecture
        ``family`` and that family's settings, as ``architecture()`` returns them;
        missing settings take their defaults.

    Raises
    ------
    CheckpointError
        If the family or a setting is unknown here.
    """
    config = configure(architecture)
    module, _, network_name = _FAMILIES[architecture["family"]]
    network_class = getattr(
        import_module(f"napari_cfrseg.model.{module}"), network_name
    )
    network: ClickNetwork = network_class(config)
    return network
