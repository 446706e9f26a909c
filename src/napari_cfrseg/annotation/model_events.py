"""The kinds of events that say which network computes later rounds."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from napari_cfrseg.annotation import event_fields as form
from napari_cfrseg.annotation.event_fields import Event, event
from napari_cfrseg.engine.adapted import MOST_NUMBERS, Adaptation


@event("model_changed")
class ModelChanged(Event):
    """Rounds computed from now on use other weights, by name and their file's SHA-256.

    Earlier results stay; a click that is moved later is recomputed.
    """

    is_setting: ClassVar[bool] = True
    name: form.Text
    sha256: form.Sha256 | None = None


@event("model_adapted")
class ModelAdapted(Event):
    """First clicks made from now on use what finished objects taught, or forget it.

    Earlier results stay. ``numbers`` are added to the light parameters of the network,
    whose SHA-256 is ``base``; they are kept and not computed again, so a replay has the
    same ones. Without ``object_ids`` what was learnt is forgotten. ``gain`` is the IoU
    that first clicks gained on finished objects that did not teach.
    """

    is_setting: ClassVar[bool] = True
    object_ids: form.Objects = ()
    base: form.Sha256 | None = None
    numbers: Annotated[tuple[form.Float, ...], Field(max_length=MOST_NUMBERS)] = ()
    gain: form.Float = 0.0

    @property
    def adaptation(self) -> Adaptation | None:
        """Return what is used from now on; None: the model as it is."""
        if self.base is None or not self.numbers:
            return None
        return Adaptation(self.base, self.numbers, self.gain)
