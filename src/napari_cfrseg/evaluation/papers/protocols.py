"""The papers' evaluation settings, by name.

==============  ====================================================================
``ritm``        Zoom-In to 400 px (DAVIS: 600) from click 2, flip, stop at IoU 0.90
``simpleclick`` Zoom-In to exactly 448×448 (DAVIS: 672×672) from click 1, flip, 0.90
``paper-cfr``   as SimpleClick, plus CFR; stop at 0.95. The released evaluator cascades
                on the first click only, the paper says on every click (the default)
``paper-fcfi``  Zoom-In per data set and backbone, moved by negative clicks too and
                computed from M^u; all 20 clicks always made
``micro``       the product: automatic focus, no flip, threshold 0.5
==============  ====================================================================

All threshold the probability at 0.49 but ``micro``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_cfrseg.evaluation.papers.zoomin import ZoomIn

PAPER_THRESHOLD = 0.49
#: no IoU reaches it: all clicks are made
NEVER_STOP = 1.01
PROTOCOL_NAMES = ("micro", "ritm", "simpleclick", "paper-cfr", "paper-fcfi")
#: (target size, expansion ratio) of FCFI's released configurations
FCFI_ZOOM = {
    ("hrnet18s", "grabcut"): (700, 3.0),
    ("hrnet18s", "berkeley"): (720, 2.8),
    ("hrnet18s", "davis"): (720, 3.5),
    ("hrnet18s", "sbd"): (480, 2.3),
    ("resnet101", "grabcut"): (600, 3.2),
    ("resnet101", "berkeley"): (720, 2.5),
    ("resnet101", "davis"): (640, 3.0),
    ("resnet101", "sbd"): (480, 2.3),
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a published predictor is run.

    Attributes
    ----------
    name
        Its name.
    zoom
        Zoom-In settings; None: always the whole image.
    flip
        Whether logits are averaged with those of the mirrored image.
    threshold
        A pixel belongs to the mask when its probability is greater.
    extra_steps
        CFR-n's n; 0: one evaluation per click.
    adaptive
        True: A-CFR, stop once a step changes at most ``stop_changed_px`` pixels.
    stop_changed_px
        Counted at the image's resolution, thresholded at ``threshold``.
    cascade_clicks
        CFR is applied while an object has at most this many clicks.
    clicks_limit
        Only so many first clicks are shown to the network; None: all.
    roi_from_updated
        True: windows follow M^u instead of the prediction (FCFI).
    target
        IoU at which the robot stops.
    """

    name: str
    zoom: ZoomIn | None
    flip: bool = True
    threshold: float = PAPER_THRESHOLD
    extra_steps: int = 0
    adaptive: bool = False
    stop_changed_px: int = 20
    cascade_clicks: int = 20
    clicks_limit: int | None = None
    roi_from_updated: bool = False
    target: float = 0.90

    def with_refinement(self, extra_steps: int, *, adaptive: bool) -> Protocol:
        """Return the same protocol with CFR-n or A-CFR-n."""
        return replace(self, extra_steps=extra_steps, adaptive=adaptive)


def paper_protocol(
    name: str, *, dataset: str = "", backbone: str = "hrnet18s"
) -> Protocol:
    """Return a published protocol.

    Parameters
    ----------
    name
        ``"ritm"``, ``"simpleclick"``, ``"paper-cfr"`` or ``"paper-fcfi"`` (``"micro"``
        is the product's own segmenter, not a published predictor).
    dataset
        The set's name: DAVIS has larger targets, and FCFI has settings for GrabCut,
        Berkeley, DAVIS and SBD; on other sets FCFI uses SBD's.
    backbone
        ``"hrnet18s"`` or ``"resnet101"``: FCFI's settings differ.

    Raises
    ------
    ValueError
        For an unknown name or backbone.
    """
    davis = dataset.lower().startswith("davis")
    if name == "ritm":
        return Protocol(name, ZoomIn(target_size=600 if davis else 400))
    if name in ("simpleclick", "paper-cfr"):
        side = 672 if davis else 448
        zoom = ZoomIn(target_size=(side, side), skip_clicks=-1)
        return Protocol(name, zoom, target=0.95 if name == "paper-cfr" else 0.90)
    if name == "paper-fcfi":
        return _fcfi(dataset.lower(), backbone)
    msg = (
        f"no published protocol {name!r}: choose ritm, simpleclick, paper-cfr or "
        "paper-fcfi"
    )
    raise ValueError(msg)


def _fcfi(dataset: str, backbone: str) -> Protocol:
    names = [d for b, d in FCFI_ZOOM if b == backbone]
    if not names:
        known = sorted({b for b, _ in FCFI_ZOOM})
        msg = f"FCFI has no backbone {backbone!r}: choose one of {', '.join(known)}"
        raise ValueError(msg)
    match = next((d for d in names if dataset.startswith(d)), "sbd")
    target_size, ratio = FCFI_ZOOM[backbone, match]
    zoom = ZoomIn(target_size, expansion_ratio=ratio, negatives_too=True)
    return Protocol("paper-fcfi", zoom, roi_from_updated=True, target=NEVER_STOP)
