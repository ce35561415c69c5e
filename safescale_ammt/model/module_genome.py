"""Module genomes: where the architecture is a user's own `torch.nn.Module`.

Nothing of it is searched. The genome says which function built the module, of which
code, and how large it is; what it computes stands in the model itself (`program`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import is_digest
from safescale_ammt.model.genome import ENCODINGS

_SCHEMA, KIND = 1, "module"


@dataclass(frozen=True)
class ModuleGenome:
    """A module of a user's own.

    Attributes:
        model: the function that built it, `package.module:function`.
        code: digest of the code that the function is of.
        encoding: of the rows that it reads, one of `ENCODINGS`.
        size: its trained numbers.
        cost: multiplications and additions of its matrices for one row.
    """

    model: str
    code: str
    encoding: str
    size: int
    cost: int

    def __post_init__(self) -> None:
        """Checks types and ranges.

        Raises:
            InputError: a field has the wrong type or lies outside its range.
        """
        whole = all(type(n) is int and n >= 0 for n in (self.size, self.cost))
        known = self.encoding in ENCODINGS and isinstance(self.model, str)
        if not (whole and known and is_digest(self.code)):
            raise InputError(
                f"The genome of a module is {self.to_dict()!r}, expected model, code "
                f"(a digest), an encoding of {', '.join(ENCODINGS)}, size and cost."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"schema": _SCHEMA, "kind": KIND, **asdict(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModuleGenome:
        """Parses the JSON form.

        Raises:
            InputError: unknown or missing key, or an impossible value.
        """
        names = {f.name for f in fields(cls)}
        if set(raw) != names | {"schema", "kind"} or raw["schema"] != _SCHEMA:
            raise InputError(
                f"A genome of a module has schema {_SCHEMA} and the keys "
                f"{sorted(names | {'kind', 'schema'})}, found {sorted(raw)}."
            )
        return cls(**{name: raw[name] for name in names})

    def parameters(self, d_in: int, n_out: int) -> int:
        """Returns its trained numbers, whatever the rows."""
        del d_in, n_out
        return self.size

    def flops(self, d_in: int, n_out: int) -> int:
        """Returns multiplications and additions of one row's answer."""
        del d_in, n_out
        return self.cost
