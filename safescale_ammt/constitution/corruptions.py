"""Corruptions: accidents of a camera that an image's answer has to survive.

{metric: corruption_accuracy, threshold: 0.8}                    any of them
{metric: corruption_accuracy, threshold: 0.8, corruptions: [noise, blur]}

Each judged image meets one kind at one severity, drawn by lot: the metric is the share
that is answered right, in the long run the mean over kinds and severities (Hendrycks &
Dietterich, ICLR 2019). What each of them does is in `judging.corrupting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import digest_json

KINDS = (
    *("noise", "shot", "impulse", "blur"),
    *("contrast", "brightness", "rotate", "translate"),
)
SEVERITIES = (1, 2, 3)


@dataclass(frozen=True)
class Corruptions:
    """What images meet.

    Attributes:
        kinds: some of `KINDS`, in their order.
    """

    kinds: tuple[str, ...] = KINDS

    @property
    def name(self) -> str:
        """The corruptions in words, such as `one of 24 corruptions, by lot`."""
        some = f" ({', '.join(self.kinds)})" if self.kinds != KINDS else ""
        return f"one of {len(self.kinds) * len(SEVERITIES)} corruptions{some}, by lot"

    @property
    def key(self) -> str:
        """By which evidence names them: the same kinds have the same one."""
        named = {"corruptions": self.to_list()}
        return digest_json(named).removeprefix("sha256:")[:16]

    def each(self) -> Iterator[tuple[str, int]]:
        """Yields every kind at every severity, in the order of their numbers."""
        for kind in self.kinds:
            for severity in SEVERITIES:
                yield kind, severity

    def to_list(self) -> list[str]:
        """Returns the form of a file."""
        return list(self.kinds)


def read_corruptions(raw: Any, where: str) -> Corruptions:
    """Parses which kinds images meet; None is all of them.

    Raises:
        ConstitutionError: no list, none, or a kind that there is not.
    """
    if raw is None:
        return Corruptions()
    if not isinstance(raw, list | tuple) or not raw:
        raise ConstitutionError(
            f"{where} is {raw!r}; it lists kinds of corruptions, as [noise, blur], and "
            "without it all of them are meant."
        )
    for kind in raw:
        if kind not in KINDS:
            raise ConstitutionError(f"{where} has {kind!r}, {one_of(KINDS, kind)}.")
    # In one order and each once: the same promise has one digest.
    return Corruptions(tuple(kind for kind in KINDS if kind in raw))
