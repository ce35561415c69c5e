"""The command line `safescale`: commands load on first use, errors are sentences.

Exit codes: 0 done, 2 usage or bad input, 3 refused (a violated constitution, a
failed verification, tampering), 1 anything else.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from safescale_ammt import __version__
from safescale_ammt.errors import SafescaleError, one_of
from safescale_ammt.library_imports import spare_imports

# Names and help stand here: to read them from the commands would load them all, and
# with them KFP, which takes seconds.
_COMMANDS = {
    "run": ("run:run", "Train, judge and register a model on this machine."),
    "runs": ("runs:runs", "List, show and compare runs."),
    "compile": ("build:compile_", "Compile the pipeline for Kubeflow."),
    "stage": ("build:stage", "Run one stage on folders."),
    "registry": (
        "registry:registry",
        "List, show, verify, download versions.",
    ),
    "keygen": ("deciding:keygen", "Draw an approver's key."),
    "approve": ("deciding:approve", "Sign that a pending version may serve."),
    "reject": ("deciding:reject", "Sign that it may not, for ever."),
    "promote": ("deciding:promote", "Make an approved version champion."),
    "rollback": ("deciding:rollback", "Put an earlier champion back into service."),
    "revoke": ("deciding:revoke", "Take a version out of service for ever."),
    "verify": ("bundle:verify", "Check a bundle or an artifact, offline."),
    "report": ("bundle:report", "Write a verdict's report again."),
    "open": ("opening:open_", "Tell the figures behind an answer of one bit."),
    "predict": ("bundle:predict", "Score raw rows with a registered model."),
    "constitution": ("constitution:constitution", "Check a constitution."),
    "data": ("data:data", "Fetch a built-in data set."),
    "submit": ("kubeflow:submit", "Run the pipeline on Kubeflow."),
    "schedule": ("kubeflow:schedule", "Run it there again and again."),
    "doctor": ("doctor:doctor", "Say what a cluster lacks."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not before."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Names the commands in the order of a user's day."""
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(f"pipelines.commands.{module}"), name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command, or says which one is spelled most like it."""
        # Options are click's to judge.
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}, {one_of(_COMMANDS, args[0])}.")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, _ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Lists the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="safescale")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """From a written constitution and raw data to a registered, tested model."""
    # Here, where a command is about to run: `--help` is spared the import.
    from safescale_ammt.library_logs import quiet_libraries

    ctx.with_resource(quiet_libraries())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    # Rows of people, or what comes of them: who is to read it, its owner decides.
    os.umask(0o077)
    spare_imports()
    # A start makes a hundred thousand objects, of which none is garbage.
    gc.set_threshold(20_000)
    # Python's own rule for programs: warnings are for who asks for them (`-W`).
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; whatever goes wrong is one sentence and an exit code."""
    try:
        # In its standalone mode click ends the process itself, with codes of its own.
        cli.main(arguments, prog_name="safescale", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SafescaleError as error:
        return _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("Stopped from the keyboard.", 1)
    except BrokenPipeError:
        # The reader left: Python would flush into the same pipe at its exit.
        sys.stdout = None
        return 1
    except Exception as error:  # noqa: BLE001  the last line of defence
        from pipelines.local.state import log_failure

        file = log_failure(error)
        return _fail(
            f"Something broke that should not ({type(error).__name__}); {file} has the "
            "traceback.",
            1,
        )
    return 0


def _fail(sentence: str, code: int) -> int:
    # Standard output stays for results, so that a pipe never gets a complaint.
    print(sentence, file=sys.stderr, flush=True)
    return code
