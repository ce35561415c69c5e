"""The preparation of a table as one would write it in DuckDB, polars or pandas.

Each reads `rows.csv`, hashes the rows, numbers equal ones, ranks them by a key within
sensitive value and class, cuts the ranks into six splits, takes 25 quantiles of each
number from the train rows, and writes a Parquet file for each split. None learns what
columns hold, checks a row, counts a group, audits or seals anything.
"""

DUCKDB = """
from pathlib import Path
import duckdb
imported()
folder = Path(sys.argv[1])
db = duckdb.connect()
db.execute(f"set memory_limit = '1GB'; set temp_directory = '{folder}/duckdb'")
source = f"read_csv('{folder}/rows.csv')"
names = [r[0] for r in db.execute(f"describe select * from {source}").fetchall()]
every = ", ".join(f'"{n}"' for n in names)
db.execute(f'''create table placed as
with hashed as (select *, hash({every}) as row from {source}),
numbered as (select *, row_number() over (partition by row) as number from hashed),
ranked as (select *, (row_number() over (partition by race, income
    order by hash(row, number)) - .5) / count(*) over (partition by race, income) as q
    from numbered)
select *, case when q < .4 then 0 when q < .5 then 1 when q < .6 then 2
    when q < .7 then 3 when q < .8 then 4 else 5 end as split from ranked''')
kinds = db.execute("describe placed").fetchall()
numbers = [k[0] for k in kinds if k[1] in ("BIGINT", "DOUBLE") and k[0] in names]
shares = [i / 24 for i in range(25)]
for name in numbers:
    db.execute(f'select quantile_cont("{name}", {shares}) from placed where split = 0')
for i in range(6):
    db.execute(f"copy (select * from placed where split = {i}) "
               f"to '{folder}/duckdb{i}.parquet' (compression zstd)")
"""

POLARS = """
from pathlib import Path
import polars as pl
imported()
folder = Path(sys.argv[1])
table = pl.read_csv(folder / "rows.csv")
numbers = [n for n, kind in table.schema.items() if kind.is_numeric()]
table = table.with_columns(row=table.hash_rows())
table = table.with_columns(number=pl.int_range(pl.len()).over("row"))
table = table.with_columns(key=table.select("row", "number").hash_rows())
within = ["race", "income"]
q = (pl.col("key").rank("ordinal").over(within) - 0.5) / pl.len().over(within)
table = table.with_columns(q=q)
cuts = [0.4, 0.5, 0.6, 0.7, 0.8]
split = pl.sum_horizontal([(pl.col("q") >= cut).cast(pl.Int8) for cut in cuts])
table = table.with_columns(split=split)
train = table.filter(pl.col("split") == 0)
for name in numbers:
    [train[name].quantile(i / 24, "linear") for i in range(25)]
for i in range(6):
    table.filter(pl.col("split") == i).write_parquet(folder / f"polars{i}.parquet")
"""

PANDAS = """
from pathlib import Path
import numpy as np
import pandas as pd
imported()
folder = Path(sys.argv[1])
table = pd.read_csv(folder / "rows.csv")
numbers = list(table.select_dtypes("number").columns)
row = pd.util.hash_pandas_object(table, index=False)
number = row.groupby(row).cumcount()
both = pd.DataFrame({"row": row, "number": number})
key = pd.util.hash_pandas_object(both, index=False)
groups = key.groupby([table["race"], table["income"]])
q = (groups.rank(method="first") - 0.5) / groups.transform("size")
split = np.searchsorted([0.4, 0.5, 0.6, 0.7, 0.8], q, side="right")
table["row"] = row
for name in numbers:
    table.loc[split == 0, name].quantile(np.linspace(0, 1, 25))
for i in range(6):
    table[split == i].to_parquet(folder / f"pandas{i}.parquet", compression="zstd")
"""

OTHERS = {"duckdb": DUCKDB, "polars": POLARS, "pandas": PANDAS}
"""Code by library, to be run in the process that `scale` measures."""
