"""Attention over the columns of a table (after Gorishniy et al. 2021)."""

import torch
from torch import nn


class ColumnAttention(nn.Module):
    """Each column becomes a token; a token of the row's own collects the answer."""

    def __init__(self, columns, outputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.columns = [range(*pair) for pair in columns.values() if pair[0] < pair[1]]
        self.tokens = nn.ModuleList(nn.Linear(len(c), width) for c in self.columns)
        self.row = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits (n, outputs) of rows (n, inputs)."""
        parts = [
            token(x[:, c.start : c.stop])
            for token, c in zip(self.tokens, self.columns, strict=True)
        ]
        row = self.row.expand(len(x), -1, -1)
        tokens = torch.cat([row, torch.stack(parts, 1)], 1)
        return self.head(self.encoder(tokens)[:, 0])


def build(rows):
    """Returns the net for rows of this format."""
    return ColumnAttention(rows.columns, rows.outputs, width=16, heads=2)
