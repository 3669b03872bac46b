"""What the texts of all commands are put together from."""

from __future__ import annotations

from typing import Any

from rich.table import Table

_RAW_CHARACTERS = 1000
_TEXTUAL = frozenset(
    (
        *("table", "digest", "child", "parent", "kind", "step", "action", "reason", "dataset", "model", "request", "state"),
        *("shard", "metric", "what", "at", "first", "column", "target", "n-gram"),
    )
)


def grid(columns: str, rows: list[tuple[Any, ...]]) -> Table:
    """A table without lines: names of columns separated by blanks, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns.split():
        table.add_column(name.replace("_", " "), justify="left" if name in _TEXTUAL else "right", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else str(v) for v in row))
    return table


def ran(found: bool, seconds: float) -> str:
    """What a stage took."""
    return "found, not run again" if found else f"{seconds:.1f} s"


def short(digest: str) -> str:
    """The beginning of a digest, enough to tell two apart."""
    return digest.rsplit(":", maxsplit=1)[-1][:12]


def harmless(raw: str) -> str:
    """Foreign text for a terminal: one line of bounded length, without characters that command it."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[:_RAW_CHARACTERS])
    return f"{shown}... ({len(raw):,} characters)" if len(raw) > _RAW_CHARACTERS else shown
