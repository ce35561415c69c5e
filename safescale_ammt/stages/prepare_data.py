"""Stage 1: raw rows behind a URI become a dataset and a sealed holdout.

The sealed rows go to the protected prefix of the store of data; the holdout artifact
names them (`store.protected`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Days, Window
from safescale_ammt.data.audit import audit
from safescale_ammt.data.audit_warnings import AUDIT, in_lines
from safescale_ammt.data.bias_findings import KINDS
from safescale_ammt.data.counts import LEAST_SHOWN, SplitCounts, Withheld
from safescale_ammt.data.holdout import SAMPLING, SEALED_ROWS
from safescale_ammt.data.leaks import refuse_leaks
from safescale_ammt.data.local_table import HELD, Held, LocalEngine
from safescale_ammt.data.preparation import Engine, Prepared
from safescale_ammt.data.references import References
from safescale_ammt.data.relations import ALL_SPLITS, SEALED
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.artifacts import Manifest, read_manifest, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.files.memory import give_back_freed
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.images import ImageLayout
from safescale_ammt.reading.sources import (
    ALL,
    Side,
    check_digest,
    chosen_days,
    window_of_sealed,
)
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import data_store
from safescale_ammt.store.protected import private_scratch, set_apart
from safescale_ammt.store.uri import STORE, check_given

STAGE = "prepare_data"
# Notes that the log shows: what one of development and sealed rows has alone.
SIDES = ("sealed_rows_with_unseen_values", "groups_on_one_side")


def run(
    data: Mapping[str, Any],
    dataset: Path,
    holdout: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    held: Held = HELD,
) -> dict[str, Any]:
    """Prepares the two artifacts.

    Reads the raw rows of the chosen days, checks their digest, splits them and writes
    the holdout, then the dataset, which names it.

    Args:
        data: the `data` section of a config.
        dataset: where the dataset artifact is written.
        holdout: where the holdout artifact is written.
        environ: names the store that gets the sealed rows (`SAFESCALE_STORE`).
        held: how much is held at once, on which the audit depends, and rows of a shard.

    Returns:
        Rows per split, numbers of inputs and warnings, digests, days, small groups if
        there are any; what the log shows.

    Raises:
        ConfigError: the section has no source.
        InputError: no store is named, or a source is a pod's own disk.
        DataError: the raw data do not fit their description, or an input tells the
            label by itself.
        IntegrityError: the raw bytes are not those of `data.source_digest`.
        StorageError: the store does not take the sealed rows.
        EngineError: Spark does not answer, or fails at something.
    """
    config = DataConfig.from_params(data)
    if not config.source:
        raise ConfigError(
            "data.source is empty; name the URI of a file or folder of rows."
        )
    for key in ("source", "sealed_source"):
        check_given(getattr(config, key), f"data.{key}", environ)
    # Before a row is read: without it all that follows would be in vain.
    store = data_store(environ)
    days = chosen_days(config.source, Window.parse(config.window))
    layout = Layout(
        config.format,
        config.columns,
        config.comment,
        config.skip_rows,
        config.delimiter,
        config.decimal,
        config.encoding,
        config.missing,
        chosen=config.named_columns,
        # What is no input keeps its spelling, whatever its texts look like.
        texts=config.text_columns | {*config.numbers, *config.dates},
        images=ImageLayout.of(config),
    )
    # Beside the dataset: what is too much for memory may be too much for /tmp.
    with (
        private_scratch(Path(dataset)) as scratch,
        engine_of(config, held, scratch, environ) as engine,
    ):
        source = engine.read(config.source, layout, days.window if days else ALL)
        say_progress(1, 4, "development rows read")
        # Without an official test file, `prepare` splits the sealed rows off.
        sealed = None
        if config.sealed_source:
            window = window_of_sealed(config.sealed_source, days)
            sealed = engine.read(config.sealed_source, layout, window)
        say_progress(2, 4, "all rows read")
        # Kubeflow's cache sees the URI and not the bytes behind it: a config that
        # states their digest is only served from the cache for these very bytes.
        digest = check_digest(config.source_digest, source, sealed)
        sides = [side for side in (source, sealed) if side]
        prepared = engine.prepared(config, sides)
        say_progress(3, 4, "rows split")
        return write_prepared(
            config,
            prepared,
            (source, sealed),
            days=days,
            digest=digest,
            store=store,
            paths=(Path(dataset), Path(holdout)),
            held=held,
        )


@contextmanager
def engine_of(
    config: DataConfig, held: Held, scratch: Path, environ: Mapping[str, str]
) -> Iterator[Engine]:
    """Gives what reads and prepares rows, as `data.engine` says.

    Raises:
        InputError: no Spark is named, or its client is not here.
        EngineError: Spark does not answer, or fails at something.
    """
    if config.engine == "local":
        yield LocalEngine(held, scratch)
        return
    # Half a second of imports, for whoever prepares rows there.
    from safescale_ammt.spark.engine import SparkEngine
    from safescale_ammt.spark.session import open_session

    with open_session(environ) as session:
        yield SparkEngine(session, environ[STORE], held, scratch)


def write_prepared(
    config: DataConfig,
    prepared: Prepared,
    sides: tuple[Side, Side | None],
    *,
    days: Days | None,
    digest: str,
    store: Store,
    paths: tuple[Path, Path],
    held: Held,
) -> dict[str, Any]:
    """Audits prepared rows, writes both artifacts and tells of them; see `run`."""
    (source, sealed), (dataset, holdout), schema = sides, paths, prepared.schema
    sizes = dict(zip(ALL_SPLITS, prepared.placement.sizes, strict=True))
    counts = prepared.counts
    sample = prepared.audited.drawn(held.audited_rows)
    # Here the peak is: a quarter of a GiB less at 20 million rows.
    give_back_freed()
    references = References.of(config)
    audited = audit(
        schema, sample, config.seed, prepared.facts, counts, references=references
    )
    # Before anything is written: nothing is spent on a label among the inputs.
    looked_at = sum(map(len, sample.values()))
    refuse_leaks(audited.leaks, config.allow_leak, config.entity, looked_at)
    del sample
    sealed_identity = write_holdout(prepared, config, holdout, store).identity
    # By role and not by URI: a copy elsewhere has the same identity.
    tables = {"data.source": source} | (
        {"data.sealed_source": sealed} if sealed else {}
    )
    reading = [
        f"{role}: {note}" + (f" (in {files} files)" if files > 1 else "")
        for role, table in tables.items()
        for note, files in table.notes.items()
    ]
    report = {
        "schema": 1,
        "source_digest": digest,
        "source": dict(source.digests),
        "sealed_source": dict(sealed.digests) if sealed else {},
        "window": days.to_dict() if days else {},
        # The judge accepts no other holdout with this dataset.
        "holdout": sealed_identity,
        **prepared.notes,
        # Only what is not as in a plain file is said.
        **({"reading": reading} if reading else {}),
    }
    # The sealed file's rows less the sealed split's are the rows that were left out.
    total = {"": f" of {source.rows}", "sealed_": ""}
    for side, whole in total.items():
        if dropped := prepared.notes.get(f"unlabelled_{side}rows_dropped"):
            rows = f"{side.replace('_', ' ')}rows".capitalize()
            told = f"{rows} without a label that are left out: {dropped}{whole}."
            print(told, flush=True)
    forms = [
        f"Column {name!r} is read as {form}."
        for name, form in prepared.notes.get("columns_read", {}).items()
    ]
    if drawn := prepared.notes.get("sealed_rows_beside_one_of_their_entity"):
        print(f"Sealed: one row of each of {sizes[SEALED]} entities, by lot.")
        print(f"Other sealed rows of these entities, left out: {drawn}.", flush=True)
    kinds = [f"{KINDS[kind.kind]}: {kind.status}" for kind in audited.examined]
    looked = f"Examined for bias ({AUDIT} says how). {'; '.join(kinds)}."
    for line in (*reading, *forms, looked, *in_lines(audited.warnings)):
        print(line, flush=True)
    files = {"source.json": report, AUDIT: audited.to_dict()}
    write_dataset(prepared, config, dataset, files, held.shard_rows)
    return {
        "dataset": read_manifest(dataset).identity,
        "holdout": sealed_identity,
        "source_digest": digest,
        # Texts with a slash are taken for paths and kept out of the metadata.
        "window": str(days.window).replace("/", " to ") if days else "",
        "rows": sizes,
        "features": len(schema.features),
        "warnings": len(audited.warnings),
        **_in_words(report, counts.splits[SEALED]),
    }


def write_holdout(
    prepared: Prepared, config: DataConfig, path: Path, store: Store
) -> Manifest:
    """Puts the sealed rows into the store, then writes the holdout that names them."""
    schema = prepared.schema
    with private_scratch(path) as scratch:
        with writing(
            scratch / "holdout",
            kind="holdout",
            stage=STAGE,
            config_digest=config.digest,
        ) as draft:
            write_json(draft.folder / "schema.json", schema.to_dict())
            prepared.rows.write_sealed(draft.folder / SEALED_ROWS, schema)
            if schema.entity:
                rows = {"schema": 1, "rows": prepared.sealed}
                write_json(draft.folder / SAMPLING, rows)
            prepared.keys().save(draft.folder)
        return set_apart(store, scratch / "holdout", path)


def write_dataset(
    prepared: Prepared,
    config: DataConfig,
    path: Path,
    files: Mapping[str, Any],
    shard_rows: int,
) -> None:
    """Writes the dataset artifact with some files of JSON and the counts."""
    schema = prepared.schema
    with writing(
        path, kind="dataset", stage=STAGE, config_digest=config.digest
    ) as draft:
        # Its words may change: who trains on these rows trains on the same dataset.
        draft.outside_identity.add(AUDIT)
        write_json(draft.folder / "schema.json", schema.to_dict())
        write_json(draft.folder / "counts.json", prepared.counts.to_dict())
        for name, value in files.items():
            write_json(draft.folder / name, value)
        # Of the development splits alone: the sealed rows lie in the holdout.
        prepared.rows.write_shards(draft, schema, shard_rows)


def _in_words(report: Mapping[str, Any], shown: SplitCounts) -> dict[str, str]:
    """Spells for the log what one side has alone, and what the counts withhold."""
    words = {}
    for key in SIDES:
        if key in report:
            # Counts by column, or names by column and side.
            note = {
                name: ", ".join(f"{side} {' '.join(v)}" for side, v in what.items())
                if isinstance(what, Mapping)
                else what
                for name, what in report[key].items()
            }
            words[key] = "; ".join(f"{name}: {what}" for name, what in note.items())
    # Small groups, and those whose counts are hidden for their sake.
    small, hidden = (
        [f"{name} {value}" for name, values in found.items() for value in values]
        for found in (shown.withheld(Withheld.SMALL), shown.withheld(Withheld.HIDDEN))
    )
    text = f"under {LEAST_SHOWN} sealed rows, in all or of a class: {', '.join(small)}"
    beside = f"counts hidden beside these: {', '.join(hidden)}"
    if withheld := [text] * bool(small) + [beside] * bool(hidden):
        words["withheld"] = "; ".join(withheld)
    return words
