"""`safescale submit` and `schedule`: the pipeline on a Kubeflow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.kubeflow_options import (
    kubeflow_of,
    pairs_of,
    request_of,
    session_options,
    store_of,
    work_options,
)
from pipelines.commands.options import FiniteRange, pipeline_option, refuse_unread
from pipelines.output import say

if TYPE_CHECKING:
    from pipelines.kubeflow.preparation import KubeflowRequest
    from pipelines.kubeflow.promotion import PromotionRequest


_WORKLOAD = (
    *("config", "constitution", "overrides", "parameters", "image_prefix", "images"),
    *("window", "rehearse", "no_cache"),
)
_PROMOTION = ("registry", "version", "approvals")
_FOLLOWING = ("timeout", "poll", "stop", "attempts")
UNREAD = {
    "upload_only": (
        "with --upload-only, which starts nothing",
        ("name", "experiment", "wait", *_FOLLOWING),
    ),
    "follow": (
        "with --follow, which starts nothing",
        (
            *(*_WORKLOAD, *_PROMOTION, "pipeline", "name", "account", "experiment"),
            *("version_name", "attempts"),
        ),
    ),
    "no_wait": ("with --no-wait, which follows nothing", _FOLLOWING),
    "start": ("without --upload-only", ("version_name",)),
    "promote": (
        "with --pipeline promote, which has no workload",
        [n for n in _WORKLOAD if n not in ("parameters", "image_prefix", "images")],
    ),
    "train": ("without --pipeline promote", _PROMOTION),
}
"""Way of calling `submit` -> its name, and the options that it would not read."""


@click.command()
@pipeline_option
@work_options
@session_options
@click.option("--registry", default="", help="Registered model to promote.")
@click.option(
    "--version",
    default="pending",
    show_default=True,
    help="Its version to promote: a number, or pending.",
)
@click.option(
    "--approval",
    "approvals",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Signed approval, from `safescale approve --out`; may be repeated.",
)
@click.option("--rehearse", is_flag=True, help="Judges on *select*: nothing counted.")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Runs every stage anew, as an uploaded version always does.",
)
@click.option(
    "--name",
    default="",
    help="Name of the run; the same name never starts a second one  [default: new].",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Follows the run to its end.",
)
@click.option("--follow", metavar="RUN", default="", help="Follows a run, starts none.")
@click.option(
    "--timeout",
    type=FiniteRange(min=1),
    default=86400.0,
    show_default=True,
    help="Seconds that the run is followed for; it goes on after them.",
)
@click.option(
    "--poll",
    type=FiniteRange(min=0.05),
    default=5.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Runs in turn, where the cluster breaks one off; never after a refusal.",
)
@click.option(
    "--cancel-on-interrupt",
    "stop",
    is_flag=True,
    help="A signal stops the run too; else it goes on.",
)
@click.option("--upload-only", is_flag=True, help="Uploads a version, starts nothing.")
@click.option(
    "--version-name",
    default="",
    help="Name of that version  [default: <semver>-<commit>].",
)
@click.pass_context
def submit(context: click.Context, /, **options: Any) -> None:
    """Trains, judges and registers a model on Kubeflow, or promotes one.

    Exits as `run` does: 0 if the model became champion or is pending, 3 if
    it was refused, 2 if what was given cannot be used, 1 if anything broke or
    was stopped. A refusal is read from the gate's record in the object store
    (--store and its keys), since Kubeflow shows a refusal and a crash alike;
    why a step failed or waits, from its pod, where KUBECONFIG names the cluster.
    """
    from pipelines.kubeflow.submit import SubmitRequest
    from pipelines.kubeflow.submit import submit as carry_out
    from safescale_ammt.store.uri import split_uri

    if options["upload_only"] and options["follow"]:
        raise click.UsageError("Give --upload-only or --follow, not both.")
    refuse_what_is_unread(context)
    kubeflow = kubeflow_of(options)
    if store := store_of(options):
        # A slip shows now, and not when the run has ended.
        split_uri(store)
    new_run = None
    if not options["follow"]:
        new_run = order_of(options)
    if new_run and options["upload_only"]:
        from pipelines.kubeflow.preparation import version_file
        from pipelines.kubeflow.promotion import PromotionRequest
        from pipelines.kubeflow.upload import upload, version_name

        version = options["version_name"] or version_name()
        file = (
            new_run.version_file()
            if isinstance(new_run, PromotionRequest)
            else version_file(new_run)
        )
        say(upload(kubeflow, file, version, options["account"]))
        say(file.sources)
        return
    keys = ("experiment", "account", "wait", "timeout", "poll", "stop", "attempts")
    request = SubmitRequest(
        new_run,
        name=options["follow"] or options["name"],
        store=store,
        **{key: options[key] for key in keys},
    )
    say(carry_out(kubeflow, request))


def order_of(options: dict[str, Any]) -> KubeflowRequest | PromotionRequest:
    """Returns what is to run, as the options say it."""
    if options["pipeline"] == "promote":
        from pipelines.kubeflow.promotion import PromotionRequest

        names = (*_PROMOTION, "image_prefix", "images")
        given = {name: options[name] for name in names}
        return PromotionRequest(**given, parameters=pairs_of(options))
    rehearse = ("safety.rehearse=true",) if options["rehearse"] else ()
    request = request_of(options, rehearse, cache=not options["no_cache"])
    _warn_of(request)
    return request


def refuse_what_is_unread(context: click.Context) -> None:
    """Refuses options of `submit` that this way of calling it would not read.

    Raises:
        UsageError: there is one.
    """
    given = context.params
    ways = [way for way in ("upload_only", "follow") if given[way]] or ["start"]
    ways += [given["pipeline"]] * (not given["follow"])
    for way in (*ways, *["no_wait"] * (not given["wait"])):
        where, names = UNREAD[way]
        refuse_unread(context, names, where)


_wait_option = click.option(
    "--wait",
    type=FiniteRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a run is waited for that the next would judge the rows of.",
)


@click.group(invoke_without_command=True)
@work_options
@session_options
@click.option("--cron", default="", help="Five fields, as in '0 3 * * 1', or six.")
@click.option("--every", default="", help="A fixed interval instead, such as 7d.")
@click.option("--name", default="", help="Name  [default: the workload's registry].")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Runs at the same time.",
)
@click.option(
    "--catch-up/--no-catch-up",
    default=False,
    show_default=True,
    help="Whether times that were missed are made up for.",
)
@click.option(
    "--start",
    type=click.DateTime(),
    help="Nothing fires before; an interval is counted from it (UTC).",
)
@click.option("--end", type=click.DateTime(), help="Nothing fires after (UTC).")
@_wait_option
@click.pass_context
def schedule(context: click.Context, /, **options: Any) -> None:
    """Starts the pipeline again and again; a second call rolls the schedule.

    Of all that was ever scheduled under a name only the last fires; one that was
    paused takes the order and stays paused. Nothing is deleted, since that would kill
    what runs. Cached stages are never reused, and with a --window such as 7d each run
    brings fresh sealed rows; without one, each later run is of spent rows. Cron times
    are the server's, as a rule in UTC.
    """
    if context.invoked_subcommand:
        # Each command reads its own options: one that stands before it is lost.
        command_line = click.core.ParameterSource.COMMANDLINE
        if any(context.get_parameter_source(n) is command_line for n in context.params):
            command = context.invoked_subcommand
            raise click.UsageError(
                f"Options of `schedule {command}` stand after {command!r}."
            )
        return
    from pipelines.kubeflow import schedule as schedules
    from pipelines.kubeflow.cron import seconds, six_fields
    from pipelines.kubeflow.preparation import prepare
    from pipelines.kubeflow.timing import Timing
    from safescale_ammt.execution import utc_now

    timing = Timing(
        cron=six_fields(options["cron"]) if options["cron"] else "",
        every=seconds(options["every"]) if options["every"] else 0,
        start=_utc(options["start"]),
        end=_utc(options["end"]),
        concurrency=options["concurrency"],
        catch_up=options["catch_up"],
    )
    timing.check(utc_now())
    kubeflow = kubeflow_of(options)
    # No cache: its key does not see that the bytes behind the source are others now.
    request = request_of(options, (), cache=False, recurring=True)
    run_spec = prepare(request)
    _warn_of(request)
    if run_spec.same_rows:
        _warn(
            f"{run_spec.same_rows}, so each later run judges the same sealed rows: "
            "their guarantee is spent, and its best verdict is needs_human"
        )
    elif timing.catch_up or timing.concurrency > 1:
        which = "--catch-up" if timing.catch_up else "--concurrency"
        _warn(
            f"with {which} several runs may judge the same newest days: the guarantee "
            "is spent by the first, and the others' best verdict is needs_human"
        )
    sentence = schedules.roll(
        kubeflow,
        options["name"] or run_spec.name,
        run_spec,
        timing,
        experiment=options["experiment"],
        account=options["account"],
        wait=options["wait"],
    )
    say(sentence)


@schedule.command("list")
@session_options
def list_(**options: Any) -> None:
    """Lists schedules and what they were before, oldest first; times in UTC.

    What fires is Kubeflow's word, which may be some seconds old.
    """
    from pipelines.kubeflow.schedule import states

    history = states(kubeflow_of(options))
    if not history:
        say(f"No schedule in namespace {options['namespace']!r}.")
    for item, state in history:
        # The server's zone is its own; a reader should not have to know it.
        time = f"{item.created.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        say(f"{item.name} no. {item.number}  {state:<8} {time}  {item.timing}")


@schedule.command()
@click.argument("name")
@session_options
def pause(name: str, **options: Any) -> None:
    """Keeps a schedule from firing, whoever rolls it; what it started goes on."""
    from pipelines.kubeflow.schedule import pause as carry_out

    say(carry_out(kubeflow_of(options), name))


@schedule.command()
@click.argument("name")
@session_options
@_wait_option
def resume(name: str, **options: Any) -> None:
    """Lets a paused schedule fire again, from its next time on."""
    from pipelines.kubeflow.schedule import resume as carry_out

    say(carry_out(kubeflow_of(options), name, wait=options["wait"]))


def _warn_of(request: KubeflowRequest) -> None:
    """Says what is reserved or promised in vain, before anything is spent."""
    from safescale_ammt.constitution.promise_warnings import promise_warnings

    _warn(request.idle_accelerators)
    for sentence in promise_warnings(request.workload().constitution):
        _warn(sentence.removesuffix("."))


def _warn(what: str) -> None:
    if what:
        say(f"Warning: {what}.", err=True)


def _utc(moment: datetime | None) -> datetime | None:
    # click's type reads a time without a zone, which the API would refuse.
    return moment.replace(tzinfo=UTC) if moment else None
