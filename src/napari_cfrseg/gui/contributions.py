"""What the manifest points at besides the dock: the sample images."""

from __future__ import annotations

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]


def sample_layers(name: str) -> list[LayerData]:
    """Return a bundled micrograph as an Image layer, with its scale and credits."""
    from napari_cfrseg.samples import load_sample

    sample = load_sample(name)
    metadata = {
        "licence": sample.licence,
        "attribution": sample.attribution,
        "citation": sample.citation,
        "source": sample.source,
    }
    kwargs: dict[str, Any] = {
        "name": sample.title,
        "metadata": metadata,
        "rgb": sample.image.ndim == 3,
    }
    if sample.pixel_size_um is not None:
        kwargs["scale"] = (sample.pixel_size_um,) * 2
        kwargs["units"] = ("um", "um")
    return [(sample.image, kwargs, "image")]


def glioblastoma_phase() -> list[LayerData]:
    """Glioblastoma cells, phase contrast."""
    return sample_layers("glioblastoma_phase")


def powder_sem() -> list[LayerData]:
    """Gas-atomised metal powder, SEM."""
    return sample_layers("powder_sem")


def superalloy_sem() -> list[LayerData]:
    """Precipitates in a nickel superalloy, SEM."""
    return sample_layers("superalloy_sem")


def axon_sem() -> list[LayerData]:
    """Myelinated axons of a rat's spinal cord, SEM."""
    return sample_layers("axon_sem")


def ganglioneuroblastoma_fluo() -> list[LayerData]:
    """Nuclei of a ganglioneuroblastoma section, fluorescence."""
    return sample_layers("ganglioneuroblastoma_fluo")


def breast_cancer_he() -> list[LayerData]:
    """Nuclei of breast cancer tissue, H&E."""
    return sample_layers("breast_cancer_he")
