"""Compute a click before it is made: its mask, and what makes it faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.handlers import new_object
from napari_cfrseg.annotation.rounds import RoundComputer, shown_mask
from napari_cfrseg.annotation.state import ClickEntry, ObjectState, Round, Settings
from napari_cfrseg.geometry.masks import MaskPatch, Plane
from napari_cfrseg.geometry.windows import slices
from napari_cfrseg.io.tiled_labels import AnyLabels


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """Reads an annotation, and changes nothing of it.

    ``labels_of`` returns the (Y, X) labels of a plane.
    """

    objects: Mapping[int, ObjectState]
    computer: RoundComputer
    settings: Settings
    labels_of: Callable[[Plane], AnyLabels]

    def mask_after(
        self, events: Sequence[ev.Event], check: Callable[[], None]
    ) -> MaskPatch:
        """Return the pixels an object would have (``Annotator.look_ahead``)."""
        *created, click = events
        if not isinstance(click, ev.ClickAdded):
            msg = f"{type(click).__name__} is not a click"
            raise TypeError(msg)
        whole = self.objects.get(click.object_id)
        for event in created:
            if isinstance(event, ev.ObjectCreated):
                whole = new_object(event.object_id, threshold=event.threshold)
        if whole is None or whole.locked:
            return MaskPatch.empty()
        state = whole.on(click.plane)
        entry = ClickEntry.of(click, self.settings.refinement, whole.threshold)
        found = self.computer.look_ahead(click.plane, state, entry, check)
        entries = (*state.entries, entry)
        rounds = (*state.rounds, Round(prediction=found))
        mask = shown_mask(state.start, entries, rounds, whole.threshold)
        if not mask.mask.size:
            return mask
        labels = self.labels_of(click.plane)[slices(mask.box)]
        others = (labels != 0) & (labels != click.object_id)
        if self.settings.rule is ev.OverlapRule.OVERWRITE:
            others &= np.isin(labels, [i for i, o in self.objects.items() if o.locked])
        return MaskPatch.from_mask(mask.mask & ~others, mask.offset)
