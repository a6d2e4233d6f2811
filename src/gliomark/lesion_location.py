"""Data classes of a lesion's location in the brain, as the package ``location`` finds it and results state it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gliomark.messages import Message, message

Side = Literal["left", "right"]
LesionSide = Literal["left", "right", "both"]
MIDLINE_SHARE = 0.05  # a lesion with this share of its volume on the other side is on both sides


@dataclass(frozen=True)
class RegionShare:
    """Share (0 to 1) of the lesion's volume in a region, such as "frontal-lobe".

    side: the patient's; None if it is not known, or for the corpus callosum, which has none.
    """

    region: str
    side: Side | None
    share: float

    @property
    def name(self) -> Message:
        """Name of the region with its side."""
        return _name_with_side(message(f"region-{self.region}"), self.side)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in prediction.json."""
        return {"region": self.region, "side": self.side, "share": round(self.share, 4), "name": self.name}


@dataclass(frozen=True)
class AreaDistance:
    """Least distance from the lesion's outline to an eloquent area, such as "motor-cortex", in mm; 0: they overlap.

    side: of the nearer one of two areas; None if it is not known, or for the brain stem, which has none.
    """

    area: str
    side: Side | None
    distance_mm: float

    @property
    def name(self) -> Message:
        """Name of the area with its side."""
        return _name_with_side(message(f"area-{self.area}"), self.side)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in prediction.json."""
        return {
            "area": self.area,
            "side": self.side,
            "distance_mm": round(self.distance_mm, 1),
            "name": self.name,
        }


@dataclass(frozen=True)
class LesionLocation:
    """Approximate location of a lesion, from an atlas; for orientation only, not for navigation.

    Attributes
    ----------
    refusal
        Message that says why no location is given; None if one is.
    left_share
        Share (0 to 1) of the lesion's volume left of the midline; None after a refusal.
    is_side_stated
        Whether the images state which side is which. If not, as in pictures, left and right are those of a patient
        whose right is on the left of the image, and results do not name the patient's side.
    regions
        Shares of the volume by region, the largest first; their sum is 1.
    distances
        Least distances to eloquent areas; empty if the spacing of the images is assumed.
    brain_overlap
        Dice coefficient of the brain and the atlas' brain after registration; None if it was not measured.
    """

    refusal: str | None = None
    left_share: float | None = None
    is_side_stated: bool = True
    regions: tuple[RegionShare, ...] = ()
    distances: tuple[AreaDistance, ...] = ()
    brain_overlap: float | None = None

    @property
    def side(self) -> LesionSide | None:
        """The side of the lesion, of the patient if ``is_side_stated``; None after a refusal."""
        if self.left_share is None:
            return None
        if MIDLINE_SHARE <= self.left_share <= 1 - MIDLINE_SHARE:
            return "both"
        return "left" if self.left_share > 0.5 else "right"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The side in a sentence, and what is not stated and why; only the refusal if there is one."""
        if self.refusal is not None or self.left_share is None:
            return () if self.refusal is None else (self.refusal,)
        sentences = [self._describe_side()]
        if not self.distances:
            sentences.append(message("location-no-distances"))
        return (*sentences, message("location-caution"))

    @property
    def summary(self) -> str | None:
        """The main region in one line; None after a refusal."""
        if not self.regions:
            return self.refusal
        first = self.regions[0]
        return message("location-summary", region=first.name, percent=100 * first.share)

    def _describe_side(self) -> Message:
        share = self.left_share or 0.0
        if self.is_side_stated:
            if self.side == "both":
                return message("location-both-sides", left=100 * share, right=100 * (1 - share))
            return message("location-left" if self.side == "left" else "location-right")
        if self.side == "both":
            return message("location-image-both", left=100 * (1 - share), right=100 * share)
        return message("location-image-right" if self.side == "left" else "location-image-left")

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in prediction.json. The patient's side is null if the images do not state it."""
        share = self.left_share
        return {
            "refusal": self.refusal,
            "side": self.side if self.is_side_stated else None,
            "left_share": None if share is None or not self.is_side_stated else round(share, 4),
            "regions": [one.to_dict() for one in self.regions],
            "distances": [one.to_dict() for one in self.distances],
            "brain_overlap": None if self.brain_overlap is None else round(self.brain_overlap, 4),
            "summary": self.summary,
            "sentences": list(self.sentences),
        }


def _name_with_side(name: Message, side: Side | None) -> Message:
    return name if side is None else message(f"on-the-{side}", name=name)
