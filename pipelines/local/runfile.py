"""The run's own folder: `runs/<run-id>/run.json`, its report and its log.

`run.json` is written when the run starts and again after each event, aside and
then moved, so that a killed run leaves a whole file that says how far it came.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.headline import headline
from safescale_ammt.data.audit_warnings import AUDIT, AuditWarning, read_warnings
from safescale_ammt.errors import InputError
from safescale_ammt.execution import utc_now
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.disk import private_folder
from safescale_ammt.files.typed_json import typed

SCHEMA_VERSION = 1
RUN = "run.json"
REPORT = "report.html"
LOG = "log.txt"
PIPELINE = "pipeline.yaml"
LATEST = "latest"

_FORM: dict[str, Any] = {
    **dict.fromkeys(("run", "sentence", "started", "bundle", "report"), str),
    "exit_code": int | None,
    "stages": tuple[dict[str, Any], ...],
    "artifacts": dict[str, dict[str, Any]],
    "verdict": dict[str, Any] | None,
    "version": dict[str, Any] | None,
}
"""Keys of a record that its readers go by -> their types."""
_JUDGED: dict[str, Any] = {
    "decision": str,
    "accuracy": float,
    "reasons": tuple[str, ...],
}
"""The same inside of `verdict`."""


@dataclass
class RunFile:
    """The facts of a run, written to disk while it goes on.

    Attributes:
        folder: `runs/<run-id>`.
        started: when the run began.
        facts: what is to run: command, digests, store, source.
        stages: one entry per stage begun, in order.
        artifacts: one entry per artifact, by name; by `stage.name` where an earlier
            stage has one of that name.
        warnings: about the data, once they are prepared.
        outcome: exit code and final sentence, empty until the end.
        results: verdict, version, bundle and report, as far as they were made.
    """

    folder: Path
    started: datetime
    facts: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: tuple[AuditWarning, ...] = ()
    outcome: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    _stage_started: datetime = field(default_factory=utc_now)

    @classmethod
    def create(cls, output: Path, command: Sequence[str]) -> RunFile:
        """Makes a new run's folder.

        Raises:
            InputError: the output folder cannot be written to.
        """
        started = utc_now()
        # Two runs may begin within one second, in folders that share a store.
        name = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        folder = output.absolute() / name
        try:
            private_folder(folder)
        except OSError as error:
            raise InputError(
                f"Run folder {folder} cannot be made ({error.strerror})."
            ) from None
        run = cls(folder, started, {"command": list(command)})
        run.save()
        return run

    @property
    def id(self) -> str:
        """The run's name; it sorts by time."""
        return self.folder.name

    def path(self, artifact: str) -> Path | None:
        """Returns where an artifact of this run lies, None if it was not made."""
        entry = self.artifacts.get(artifact)
        return Path(entry["path"]) if entry else None

    def point_latest(self) -> None:
        """Points `latest` to this run.

        Raises:
            InputError: the output folder cannot be written to.
        """
        # A link cannot be changed: a new one is moved over the old, in one step.
        aside = self.folder.with_name(f".{LATEST}.{self.id}")
        try:
            aside.symlink_to(self.id)
            aside.replace(self.folder.with_name(LATEST))
        except OSError as error:
            raise InputError(
                f"{self.folder.with_name(LATEST)} cannot be pointed to {self.id} "
                f"({error.strerror})."
            ) from None

    def apply(self, event: dict[str, Any]) -> None:
        """Takes in an event of the child and saves.

        Raises:
            InputError: `latest` cannot be pointed to this run.
        """
        if event["event"] == "started":
            # Not before: a run that was refused at the door is nobody's latest.
            if not self.stages:
                self.point_latest()
            self.stages.append({"stage": event["stage"], "status": "running"})
            self._stage_started = utc_now()
        elif event["event"] == "finished":
            names = ("seconds", "cached", "summary")
            self.stages[-1] |= {k: event[k] for k in names} | {"status": "finished"}
            stage = self.stages[-1]["stage"]
            for entry in event["artifacts"]:
                # Several stages have a summary, and none of them takes another's place.
                known = self.artifacts.get(entry["name"], {}).get("stage", stage)
                prefix = "" if known == stage else f"{stage}."
                self.artifacts[prefix + entry["name"]] = entry
            dataset = self.path("dataset")
            if dataset and not self.warnings:
                self.warnings = read_warnings(dataset / AUDIT)
        elif event["event"] == "images":
            self.facts["images"] = event["images"]
        else:
            # How it ended is said by `end`, once nothing of the run is alive.
            return
        self.save()

    def end(self, code: int, sentence: str) -> None:
        """Closes the run with its exit code and last sentence."""
        ended = utc_now()
        for stage in self.stages:
            if stage["status"] == "running":
                seconds = (ended - self._stage_started).total_seconds()
                stage |= {"status": "failed", "seconds": round(seconds, 3)}
        self.outcome = {
            "exit_code": code,
            "sentence": sentence,
            "ended": ended.isoformat(),
            "seconds": round((ended - self.started).total_seconds(), 3),
        }
        self.save()

    def keep_results(self) -> None:
        """Keeps the report and reads verdict and version, if they were made."""
        verdict, version = self.path("verdict"), self.path("version")
        answered = verdict is not None and (verdict / "answer.json").is_file()
        if verdict is not None and answered:
            told = read_json(verdict / "answer.json")
            names = ("decision", "mode", "feedback", "submissions_left", "use")
            self.results["verdict"] = {k: told[k] for k in names}
            self.results["verdict"]["guarantee"] = told["use"]["guarantee"]
            self.results["report"] = REPORT
            shutil.copyfile(verdict / REPORT, self.folder / REPORT)
        elif verdict is not None:
            whole = read_json(verdict / "verdict.json")
            names = ("decision", "reasons", "mode", "accuracy", "twin_accuracy")
            self.results["verdict"] = {k: whole[k] for k in names}
            self.results["verdict"]["gap"] = headline(whole)["gap"]
            self.results["verdict"]["guarantee"] = whole["use"]["guarantee"]
            self.results["verdict"]["headlines"] = whole["figures"].get("headlines", {})
            self.results["report"] = REPORT
        if version is not None:
            self.results["version"] = read_json(version / "version.json")
            self.results["bundle"] = self.results["version"]["bundle"]
        if verdict is not None and not answered:
            # Not above: it takes a quarter of a second that a refused config is spared.
            from safescale_ammt.reporting.provenance import Provenance, renewed
            from safescale_ammt.reporting.shortfalls import shortfalls_in

            self.results["verdict"]["shortfalls"] = shortfalls_in(verdict)
            # The judge could not know the run and what became of the model in it.
            known = Provenance.load(verdict).in_run(self.to_dict())
            page = renewed((verdict / REPORT).read_text(encoding="utf-8"), known)
            (self.folder / REPORT).write_text(page, encoding="utf-8")

    @property
    def passed(self) -> bool:
        """Whether the model was judged to keep every hard promise."""
        return bool(self.results["verdict"]["decision"] == "pass")

    @property
    def lines(self) -> list[str]:
        """What a person is told of the verdict: why it is no pass, where the report is.

        Empty before there is a verdict.
        """
        verdict = self.results.get("verdict", {})
        lines = [f"- {sentence}" for sentence in verdict.get("shortfalls", ())]
        if (self.folder / REPORT).is_file():
            lines.append(f"Report: {self.folder / REPORT}")
        return lines

    @property
    def last_sentence(self) -> str:
        """Says how a run ended that nothing broke."""
        verdict, version = self.results["verdict"], self.results["version"]
        if verdict["mode"] == "rehearsal":
            return f"Rehearsal: {verdict['decision']}; nothing was registered."
        name, number, status = (version[k] for k in ("registry", "version", "status"))
        return f"{name} version {number} is {status.replace('_', ' ')}."

    def to_dict(self) -> dict[str, Any]:
        """Returns what `run.json` holds; `exit_code` is null while it goes on."""
        return {
            "schema": SCHEMA_VERSION,
            "run": self.id,
            "exit_code": None,
            "sentence": "",
            "started": self.started.isoformat(),
            **self.outcome,
            **self.facts,
            "warnings": [warning.to_dict() for warning in self.warnings],
            "stages": self.stages,
            "artifacts": self.artifacts,
            "verdict": None,
            "version": None,
            "bundle": "",
            "report": "",
            **self.results,
        }

    def save(self) -> None:
        """Writes `run.json` aside and moves it into place."""
        aside = self.folder / f".{RUN}.partial"
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")
        aside.replace(self.folder / RUN)


def read_record(file: Path) -> dict[str, Any]:
    """Reads a `run.json`, and checks the types of what its readers go by.

    Raises:
        InputError: it is not there, or no record of a run.
    """
    raw = read_json(file)
    try:
        record = typed(raw, dict[str, Any], "it")
        for key, hint in _FORM.items():
            typed(record[key], hint, key)
        for name, entry in record["artifacts"].items():
            for key in {"name", "path", "uri", "identity"} & entry.keys():
                typed(entry[key], str, f"{name}.{key}")
        for key in _JUDGED.keys() & (record["verdict"] or {}).keys():
            typed(record["verdict"][key], _JUDGED[key], key)
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is no record of a run ({error}).") from None
    return dict(record)


def read_run(output: Path, name: str) -> dict[str, Any]:
    """Reads a run by its id, the start of its id, `latest`, or its folder.

    Raises:
        InputError: no such run, or several.
    """
    # `verify` and `report` know a run as `runs/latest`: so does who looks at it here.
    if "/" in name and (Path(name) / RUN).is_file():
        return read_record(Path(name) / RUN)
    if name == LATEST and (output / LATEST).exists():
        return read_record(output / LATEST / RUN)
    folders = [p for p in run_folders(output) if p.name.startswith(name)]
    if len(folders) != 1:
        state = "is ambiguous" if folders else "does not exist"
        raise InputError(
            f"Run {name!r} {state} in {output}; `safescale runs list` names them."
        )
    return read_record(folders[0] / RUN)


def run_folders(output: Path) -> list[Path]:
    """Lists the folders of runs, oldest first."""
    if not output.is_dir():
        return []
    # `latest` is a link to one of them, which would be listed twice.
    folders = (p.parent for p in output.glob(f"*/{RUN}") if not p.parent.is_symlink())
    return sorted(folders)
