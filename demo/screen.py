"""How the demo looks: tables and a progress bar on a terminal, one plain line per phase elsewhere.

Both say the same figures. ``rich`` is imported only when there is a terminal to draw on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from .questions import Answer


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, count: int, note: str | None = None, /) -> None:
        """``count`` steps more are done; ``note`` is shown beside, instead of the rate."""
        ...


BOARD_COLUMNS = ("region", "links", "written there", "behind", "for", "conflicts lost")
Board = Callable[[list[tuple[str, ...]]], None]


class Screen(Protocol):
    """Where the demo's findings go."""

    def say(self, phase: str, text: str, is_true: bool = True) -> None:
        """One phase's outcome in a line."""
        ...

    def progress(self, phase: str, total: int) -> AbstractContextManager[Advance]:
        """A bar while something of known size goes on; call what it gives with each step done."""
        ...

    def board(self, phase: str) -> AbstractContextManager[Board]:
        """A table of regions that changes; call what it gives with rows of ``BOARD_COLUMNS``."""
        ...

    def answer(self, answer: Answer) -> None:
        """A question, its answer and its verdict."""
        ...


def make_screen() -> Screen:
    """The screen for this process's standard output."""
    environment = os.environ
    is_plain = (
        not sys.stdout.isatty()
        or bool(environment.get("NO_COLOR"))
        or bool(environment.get("CI"))
        or environment.get("TERM") == "dumb"
        or not (sys.stdout.encoding or "").lower().startswith("utf")
    )
    return PlainScreen() if is_plain else RichScreen()


class PlainScreen:
    """Lines of text, for logs and for those who asked for them."""

    def say(self, phase: str, text: str, is_true: bool = True) -> None:
        print(f"{phase}: {text}" + ("" if is_true else " -- FALSE"), flush=True)

    @contextmanager
    def progress(self, phase: str, total: int) -> Iterator[Advance]:
        yield lambda _count, _note=None: None

    @contextmanager
    def board(self, phase: str) -> Iterator[Board]:
        yield lambda _rows: None

    def answer(self, answer: Answer) -> None:
        self.say(
            answer.question,
            f"{answer.finding} [{_time(answer.seconds)}; "
            f"{'checked' if answer.is_true else 'expected'}: {answer.verdict}]",
            answer.is_true,
        )


class RichScreen:
    """A terminal."""

    def __init__(self, output: TextIO | None = None) -> None:
        from rich.console import Console

        self._console = Console(file=output, highlight=False)
        self._is_after_answer = False

    def say(self, phase: str, text: str, is_true: bool = True) -> None:
        from rich.text import Text

        if self._is_after_answer:
            self._console.print()
        self._is_after_answer = False
        self._console.print(
            Text.assemble(_mark(is_true), "  ", (f"{phase:<8}", "bold"), text), soft_wrap=True
        )

    @contextmanager
    def progress(self, phase: str, total: int) -> Iterator[Advance]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("   [bold]{task.description:<8}"),
            BarColumn(bar_width=20, complete_style="cyan", finished_style="cyan"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", style="dim"),
        )
        began = time.monotonic()
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(phase, total=total, rate="")

            def advance(count: int, note: str | None = None, /) -> None:
                bar.advance(task, count)
                rate = bar.tasks[0].completed / max(0.001, time.monotonic() - began)
                bar.update(task, rate=f"{rate:,.0f}/s" if note is None else note)

            yield advance

    @contextmanager
    def board(self, phase: str) -> Iterator[Board]:
        from rich import box
        from rich.live import Live
        from rich.padding import Padding
        from rich.table import Table

        with Live(console=self._console, transient=True, auto_refresh=False) as live:

            def show(rows: list[tuple[str, ...]]) -> None:
                table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
                for position, column in enumerate(BOARD_COLUMNS):
                    table.add_column(column, justify="right" if position > 1 else "left")
                for row in rows:
                    table.add_row(*row, style="bold red" if "cut off" in row else "")
                live.update(Padding(table, (0, 0, 0, 3)), refresh=True)

            yield show

    def answer(self, answer: Answer) -> None:
        from rich import box
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
        for position, column in enumerate(answer.columns):
            is_numeric = position in answer.numeric
            table.add_column(column, justify="right" if is_numeric else "left", no_wrap=True)
        for row in answer.rows:
            table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
        self._console.print()
        self._console.print(Text.assemble(("?  ", "bold cyan"), (answer.question, "bold")))
        self._console.print(Text(f"   {answer.how}", style="dim"))
        self._console.print()
        self._console.print(Padding(table, (0, 0, 0, 3)))
        self._console.print()
        self._console.print(Text(f"   {answer.finding}."), soft_wrap=True)
        self._console.print(
            Text.assemble(
                _mark(answer.is_true),
                f"  {'checked' if answer.is_true else 'FALSE, expected'}: {answer.verdict}",
                (f"  {_time(answer.seconds)}", "dim"),
            ),
            soft_wrap=True,
        )
        self._is_after_answer = True


def _mark(is_true: bool) -> tuple[str, str]:
    return ("✓", "bold green") if is_true else ("✗", "bold red")


def _style(cell: str) -> str:
    if cell == "booked":
        return "bold green"
    if cell.startswith("▇"):
        return "cyan"
    return "dim" if cell.endswith("Exception") or cell == "cancelled" else ""


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
