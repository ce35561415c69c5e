"""Architectures: the modules that are trained together, in rows of one length.

    row = parameters, zeros up to `room`, buffers, zeros, the architecture's number

`room` is the most that any of them has to train, in whole lines of the cache as all
parts are: the optimizer moves the first `room` numbers of each row, whose zeros have no
gradient. The number is a buffer that nothing moves, so that a row says by itself what
it is of. A single module has the plain row of `copies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safescale_ammt.errors import InputError
from safescale_ammt.modules.copies import LINE, RowLayout
from safescale_ammt.training.muon import Matrix, matrices_of

_ROUNDED = 1e-3
"""Less than numbers of several architectures differ by in a mean of 256 agents."""


@dataclass(frozen=True)
class MixedLayout(RowLayout):
    """Layout of one of several modules.

    Attributes:
        number: of the module in the list.
        room: numbers before the buffers.
        length: of a row.
    """

    number: int = 0
    room: int = 0
    length: int = 0

    def views(self, row: Tensor) -> dict[str, Tensor]:
        """Cuts a row (P,) into named views."""
        weights = RowLayout(self.parameters, {}, self.dtype).views(row)
        # Nothing is split into no parts.
        if not self.buffers:
            return weights
        return weights | RowLayout(self.buffers, {}, self.dtype).views(row[self.room :])

    def row(self, module: nn.Module) -> Tensor:
        """Returns a copy of a module's tensors as a row (P,)."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        device = next(module.parameters()).device
        found = torch.zeros(self.length, dtype=self.dtype, device=device)
        for name, view in self.views(found).items():
            view.copy_(tensors[name].detach())
        found[-1] = self.number
        return found


@dataclass(frozen=True)
class Architectures:
    """One module, or several that answer the same rows.

    Attributes:
        modules: the user's; they stay as they are.
        layouts: of their tensors.
    """

    modules: tuple[nn.Module, ...]
    layouts: tuple[RowLayout, ...]

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> Architectures:
        """Reads the modules' layouts.

        Raises:
            InputError: a module that cannot be trained, or numbers of several types.
        """
        plain = [RowLayout.of(module) for module in modules]
        if len(plain) == 1:
            return cls((*modules,), (*plain,))
        dtypes = {layout.dtype for layout in plain}
        if len(dtypes) > 1:
            found = ", ".join(str(layout.dtype) for layout in plain)
            raise InputError(
                f"The models' parameters are of {found}; agents that are trained "
                "together compute in one type: convert them."
            )
        if len({str(next(m.parameters()).device) for m in modules}) > 1:
            raise InputError("The models lie on several devices; move them to one.")
        (dtype,) = dtypes
        line = LINE // dtype.itemsize

        def lines(numbers: int) -> int:
            return -(-numbers // line) * line

        room = max(lines(layout.trained) for layout in plain)
        kept = [sum(s.numel() for s in each.buffers.values()) for each in plain]
        length = room + lines(max(kept)) + line
        mixed = (
            MixedLayout(each.parameters, each.buffers, dtype, i, room, length)
            for i, each in enumerate(plain)
        )
        return cls((*modules,), (*mixed,))

    def __len__(self) -> int:
        return len(self.modules)

    @property
    def dtype(self) -> torch.dtype:
        """Of every row."""
        return self.layouts[0].dtype

    @property
    def trained(self) -> int:
        """Numbers of a row that the optimizer moves."""
        first = self.layouts[0]
        return first.room if isinstance(first, MixedLayout) else first.trained

    def rows(self, numbers: Sequence[int] | None = None) -> Tensor:
        """Returns the modules as they are, or some of them, as rows (m, P)."""
        chosen = range(len(self)) if numbers is None else numbers
        return torch.stack([self.layouts[i].row(self.modules[i]) for i in chosen])

    def matrices(self, numbers: Sequence[int]) -> list[tuple[Matrix, ...]]:
        """Returns where the matrices of hidden layers lie in the rows of some modules.

        Tables that rows are looked up in are none, and the last one answers.
        """
        each = []
        for module, layout in zip(self.modules, self.layouts, strict=True):
            looked_up = {
                id(p)
                for layer in module.modules()
                if isinstance(layer, nn.Embedding | nn.EmbeddingBag)
                for p in layer.parameters()
            }
            # By identity: a tied table bears the name of either layer.
            named = dict(module.named_parameters())
            wide = [n for n, shape in layout.parameters.items() if len(shape) > 1]
            hidden = {n for n in wide[:-1] if id(named[n]) not in looked_up}
            shapes = layout.parameters.items()
            each.append(matrices_of([(n in hidden, shape) for n, shape in shapes]))
        return [each[i] for i in numbers]

    def numbers(self, theta: Tensor) -> Tensor:
        """Returns which module each row (k, P) is of (k,).

        Raises:
            ValueError: a row is of none, such as a mean over several.
        """
        if len(self) == 1 or not len(theta):
            return torch.zeros(len(theta), dtype=torch.long)
        # A row that was lost as a whole says nothing; whoever answers, it is no number.
        said = theta[:, -1].detach().cpu().nan_to_num(0, 0, 0)
        found = said.round().long()
        # Weighted means of one number round; of several numbers they are far from all.
        known = (said - found).abs() < _ROUNDED
        if not bool((known & (found >= 0) & (found < len(self))).all()):
            raise ValueError(
                "Weights are of no architecture, such as a mean of several."
            )
        return found
