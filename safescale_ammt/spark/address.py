"""Where Spark is: a server of Spark Connect, or this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.errors import InputError

PLACES = "sc://HOST:15002, or local[2] for Spark on two cores of this machine"
_LOCAL = re.compile(r"local\[([1-9][0-9]{0,3}|\*)\]")
# Of a server's parameters, in which a token may stand, nothing is shown.
_SERVER = re.compile(r"(sc://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)(/(;.*)?)?")


@dataclass(frozen=True)
class Address:
    """A place of Spark.

    Attributes:
        uri: as Spark's client takes it; "" for this machine.
        cores: of this machine, a number or `*`; "" for a server.
        shown: what a sentence may say of it.
    """

    uri: str
    cores: str
    shown: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Address:
        """Reads the address that an environment names.

        Raises:
            InputError: it names none, or what is no address of Spark.
        """
        text = environ.get(SPARK_ADDRESS, "").strip()
        if not text:
            raise InputError(
                f"{SPARK_ADDRESS} is not set, so data.engine: spark has no Spark to "
                f"prepare rows on; set it to {PLACES}."
            )
        if match := _LOCAL.fullmatch(text):
            return cls("", match[1], text)
        match = _SERVER.fullmatch(text)
        if not match:
            kind = re.match(r"\w*", text)
            start = kind[0][:20] if kind else ""
            raise InputError(
                f"{SPARK_ADDRESS} starts with {start!r} and is no address of Spark, "
                f"expected {PLACES}."
            )
        return cls(text, "", match[1])
