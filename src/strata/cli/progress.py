"""Live progress for people: steps nest, tick and end with what came out of them (rich)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from strata.core.events import Event, Noted, Sink, StepBegin, StepEnd, Warned, printable
from strata.core.events import Progress as Progressed


@contextmanager
def live() -> Iterator[Sink]:
    """A renderer on standard error that redraws running steps and keeps finished ones."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[int, TaskID] = {}
    depth: dict[int, int] = {0: -1}
    with Progress(*columns, console=console, transient=True) as progress:

        def render(event: Event) -> None:
            if isinstance(event, StepBegin):
                depth[event.id] = depth.get(event.parent, -1) + 1
                indent = "  " * depth[event.id]
                tasks[event.id] = progress.add_task(
                    indent + escape(event.title), total=None, amount=""
                )
            elif isinstance(event, Progressed) and event.id in tasks:
                amount = _amount(event)
                progress.update(
                    tasks[event.id],
                    completed=event.done,
                    total=event.total or None,
                    amount=amount,
                )
            elif isinstance(event, StepEnd):
                task = tasks.pop(event.id, None)
                if task is not None:
                    progress.remove_task(task)
                indent = "  " * depth.pop(event.id, 0)
                mark = "[green]✓[/]" if event.ok else "[red]✗[/]"
                detail = f"  [dim]{escape(event.detail)}[/]" if event.detail else ""
                title = escape(event.title)
                console.print(
                    f"{indent}{mark} {title} [cyan]{event.seconds:.1f} s[/]{detail}",
                    highlight=False,
                )
            elif isinstance(event, Warned):
                console.print(f"[yellow]warning:[/] {escape(event.message)}", highlight=False)
            elif isinstance(event, Noted):
                console.print(escape(event.message), highlight=False)

        yield printable(render)


def _amount(event: Progressed) -> str:
    if event.unit == "bytes":
        total = f" of {decimal(event.total)}" if event.total else ""
        return decimal(event.done) + total
    return f"{event.done} of {event.total} {event.unit}" if event.total else f"{event.done}"


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; columns whose name starts with `>` are set to the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console()
    # A file or a pipe has no width: nothing is cut there.
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def size(size_bytes: int) -> str:
    """A size for people: 1.2 MB."""
    return decimal(size_bytes)
