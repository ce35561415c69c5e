"""The live form of what a person sees while a run goes on: a spinner and a clock."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from pipelines.progress import Progress
from safescale_ammt.printable import printable


def terminal() -> Console:
    """Returns what writes to standard error, and knows whether it is a terminal."""
    return Console(stderr=True)


class LiveProgress(Progress):
    """Shows a run on a terminal, with a spinner beside the running stage."""

    def __init__(self, run: str, console: Console) -> None:
        super().__init__(run)
        self.console = console
        self.bar: Bar | None = None

    def say(self, text: str) -> None:
        """Shows one line above the spinner."""
        self.console.print(self._line(text), highlight=False, soft_wrap=True)

    def begin(self, text: str) -> None:
        """Starts spinner and clock."""
        self.close()
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        self.bar = Bar(
            *columns, TimeElapsedColumn(), console=self.console, transient=True
        )
        self.bar.add_task(self._line(text), total=None)
        self.bar.start()

    def advance(self, share: float, text: str) -> None:
        """Writes beside the spinner how far the stage is."""
        if self.bar is not None and text:
            line = self._line(f"{self.stage} {share:.0%}, {text}")
            self.bar.update(self.bar.task_ids[0], description=line)

    def close(self) -> None:
        """Takes them away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _line(self, text: str) -> str:
        # Unescaped, a folder's name with brackets is a style that rich applies or,
        # where it knows none, fails on.
        return f"[dim]{escape(self.run)}[/] {escape(printable(text))}"
