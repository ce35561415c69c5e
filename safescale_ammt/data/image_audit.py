"""What the development images say: classes, equal images, images that show nothing.

The rest of the audit looks at columns of a table, one at a time. An image is one
column that no other row shares, and its pixels mean nothing by themselves: leaks by a
single input, proxies and measurement noise are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safescale_ammt.data.associations import equal_rows
from safescale_ammt.data.audit_warnings import AuditWarning, percent
from safescale_ammt.data.bias_findings import Examined
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.pixels import Pixels
from safescale_ammt.data.schema import Schema

NOT_EXAMINED = ("leaks by a single input", "proxies", "measurement noise")
"""What the audit of a table looks for and that of images does not."""
_UNKNOWN = {
    "proxy_leakage": "Whether images tell a sensitive column is not looked for: one "
    "pixel tells next to nothing, and all of them are no column.",
    "measurement_noise": "Whether images are worse in some groups is not looked for: "
    "no second image of the same thing can be declared.",
}


def image_section(schema: Schema, rows: Split) -> dict[str, Any]:
    """Returns the figures of `audit.json` about images; {} without any.

    Args:
        schema: features and classes.
        rows: development rows.
    """
    if not (image := schema.image):
        return {}
    pixels, _ = Pixels(image).codes(rows.features[image.name])
    same = equal_rows(rows.features.select([image.name]))
    copies = np.bincount(same)
    # Rows of each image and class: equal images of several classes cannot all be right.
    cells = np.unique(same * len(schema.classes) + rows.label)
    several = np.bincount(cells // len(schema.classes), minlength=len(copies)) > 1
    sizes = np.bincount(rows.label, minlength=len(schema.classes))
    return {
        "images": {
            "shape": list(image.shape),
            "classes": dict(zip(schema.classes, sizes.tolist(), strict=True)),
            "constant": int((pixels.min(1) == pixels.max(1)).sum()),
            "repeated": int(copies[copies > 1].sum()),
            "of_several_classes": int(copies[several].sum()),
            "not_examined": list(NOT_EXAMINED),
        }
    }


def image_kinds(examined: Sequence[Examined]) -> tuple[Examined, ...]:
    """Says of kinds of bias which of them are not looked for in images."""
    return tuple(
        replace(kind, unknown=_UNKNOWN[kind.kind]) if kind.kind in _UNKNOWN else kind
        for kind in examined
    )


def image_warnings(sections: dict[str, Any], rows: int) -> list[AuditWarning]:
    """Puts what the images say into sentences.

    Args:
        sections: of `audit.json`, with that of images if there are any.
        rows: development rows.
    """
    if not (found := sections.get("images")):
        return []
    said = {
        "constant_images": (
            found["constant"],
            "have one value in all pixels: nothing is on them",
        ),
        "image_labels": (
            found["of_several_classes"],
            "equal one of another class, which no model can tell from them",
        ),
    }
    return [
        AuditWarning(
            kind, (), count, f"{count} images ({percent(count / rows)}) {what}."
        )
        for kind, (count, what) in said.items()
        if count
    ]
