"""Image threats: how far the pixels of an image may change, and how it is searched.

threat: {norm: linf, eps: 0.03, range: [0, 1], tier: full}

Pixels are bytes / 255, so that eps is a share of the whole range. The tier (`smoke`,
`full` or `release`) is that of the battery. Of `certified_accuracy` there is none:
nothing is searched, bounds hold for every change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from safescale_ammt.constitution.entries import section
from safescale_ammt.constitution.threats import KEYS, Threat, read_threat
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import digest_json

SMOKE, FULL = "smoke", "full"
TIERS = {SMOKE: 1_000, FULL: 1_000, "release": 2_000}
"""Tier of the battery -> rows that are attacked at most; more are drawn from."""
PIXELS = (0.0, 1.0)
"""The range of every pixel."""


@dataclass(frozen=True)
class ImageThreat:
    """What may be changed of an image, and by which means it is tried.

    Attributes:
        ball: norm, radius and range of the changes.
        tier: of the battery that tries them; "" = bounds of all of them.
    """

    ball: Threat
    tier: str = ""

    @property
    def shows(self) -> bool:
        """Whether survivors count for a promise: a first look alone never does."""
        return self.tier != SMOKE

    @property
    def most_rows(self) -> int | None:
        """Rows that are attacked at most; None = all."""
        return TIERS.get(self.tier)

    @property
    def name(self) -> str:
        """The threat in words, such as `linf 0.03 in [0, 1], battery full`."""
        return self.ball.name + (f", battery {self.tier}" if self.tier else "")

    @property
    def key(self) -> str:
        """By which evidence names it: the same threat and tier have the same one."""
        return digest_json(self.to_dict()).removeprefix("sha256:")[:16]

    def to_dict(self) -> dict[str, Any]:
        """Returns the mapping form, without a tier where there is none."""
        return self.ball.to_dict() | ({"tier": self.tier} if self.tier else {})


def is_ball(raw: Any) -> bool:
    """Whether a threat as it was written is a ball around inputs."""
    return isinstance(raw, Mapping) and bool({"norm", "eps"} & set(raw))


def read_image_threat(raw: Any, where: str, *, proven: bool) -> ImageThreat:
    """Parses the mapping form.

    Args:
        raw: the mapping.
        where: its key, for sentences.
        proven: whether bounds are asked for, and no search.

    Raises:
        ConstitutionError: an unknown key, norm or tier, a radius that changes nothing,
            or a range that is not that of pixels.
    """
    entry = section(raw, where, (*KEYS, "tier"))
    tier = entry.get("tier", "" if proven else FULL)
    ball = read_threat({k: v for k, v in entry.items() if k != "tier"}, where)
    # A ball of one point would make the promise one of accuracy.
    if ball.eps == 0:
        raise ConstitutionError(
            f"{where}.eps is 0, so that nothing is changed; say a radius > 0, of which "
            "1 is the whole range of a pixel."
        )
    if ball.range not in (None, PIXELS):
        raise ConstitutionError(
            f"{where}.range is {entry['range']}, but pixels are numbers in "
            "[0, 1] (bytes / 255); say range: [0, 1]."
        )
    # Refused and not ignored: who names a tier expects a search.
    if proven and tier:
        raise ConstitutionError(
            f"{where}.tier is {tier!r}, but certified_accuracy searches nothing: its "
            "bounds hold for every change; remove it."
        )
    if proven and ball.norm != "linf":
        raise ConstitutionError(
            f"{where}.norm is {ball.norm}, but certified_accuracy is bounded by "
            "intervals of pixels; say norm: linf."
        )
    if not proven and tier not in TIERS:
        raise ConstitutionError(f"{where}.tier is {tier!r}, {one_of(TIERS, tier)}.")
    return ImageThreat(replace(ball, range=PIXELS), tier)
