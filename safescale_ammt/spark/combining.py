"""Which combinations of classes and sensitive values rows have, counted by Spark.

The driver holds entries and combinations; of rows, nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.spark.files import Batches
from safescale_ammt.spark.frames import frame_of
from safescale_ammt.spark.hashing import HASHED, RowHashing

_COUNTED = "SELECT {0}, count(*) AS rows FROM {{rows}} GROUP BY {0} ORDER BY {0}"
# Combinations are few: Spark sends them to the rows.
_FACTS = """
SELECT /*+ BROADCAST(few) */ at, high, low, stratum, false AS sealed,
  CAST(NULL AS bigint) AS entity
FROM {{rows}} AS rows JOIN {{few}} AS few ON {on}
"""


@dataclass(frozen=True)
class Combining:
    """How rows of a source are hashed and combined; all was decided from entries.

    Attributes:
        hashing: of the rows.
        places: numbers of the columns, the label's first.
        texts: their entries as the source has them.
        codes: for each entry of a column its value, int64 (entries,); of the label the
            class code and one, 0 of rows that are left out.
    """

    hashing: RowHashing
    places: tuple[int, ...]
    texts: tuple[pa.Array, ...]
    codes: tuple[NDArray[np.int64], ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns of codes in a frame of rows."""
        return [f"k{i}" for i in range(len(self.places))]

    def rows(self, frame: Any) -> Any:
        """Returns `at`, `high`, `low` and the codes of rows of `spark_rows`."""
        kinds = ", ".join([HASHED, *(f"{name} bigint" for name in self.names)])
        return frame.mapInArrow(self.coded, kinds)

    def coded(self, batches: Batches) -> Batches:
        """Hashes and codes rows in a worker, batch by batch."""
        for batch in batches:
            for hashed in self.hashing.hashed(iter([batch])):
                whole = hashed
                for i, place in enumerate(self.places):
                    found = pc.index_in(batch[f"c{place}"], value_set=self.texts[i])
                    codes = pa.array(self.codes[i][found.to_numpy()])
                    whole = whole.append_column(f"k{i}", codes)
                yield whole

    def combinations(
        self, session: Any, rows: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts the rows of every combination: (k, columns) of codes, and (k,).

        Args:
            session: of Spark Connect.
            rows: see `rows`.
        """
        counted = _COUNTED.format(", ".join(self.names))
        found = session.sql(counted, rows=rows).toArrow()
        codes = np.stack([found[name].to_numpy() for name in self.names], axis=1)
        return codes, found["rows"].to_numpy()

    def facts(
        self,
        session: Any,
        rows: Any,
        combinations: NDArray[np.int64],
        strata: NDArray[np.int64],
    ) -> Any:
        """Returns the rows that stay as `placing.Drawing` wants them.

        Args:
            session: of Spark Connect.
            rows: see `rows`; none is sealed, each is a unit.
            combinations: of them, see `combinations`.
            strata: (k,) of the combinations.
        """
        stays = combinations[:, 0] > 0
        columns = [pa.array(column) for column in combinations[stays].T]
        kept = pa.array(strata[stays].astype(np.int32))
        few = pa.table([*columns, kept], [*self.names, "stratum"])
        on = " AND ".join(f"rows.{name} = few.{name}" for name in self.names)
        few = frame_of(session, few)
        return session.sql(_FACTS.format(on=on), rows=rows, few=few)
