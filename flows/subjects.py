"""Reading KIND=ID from the command line or a file. What is read here goes into an HMAC and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer


def read_subjects(options: Sequence[str], from_file: Path | None) -> list[tuple[str, str]]:
    """(kind, id) pairs in the order given. A malformed one is refused by its place, never by its text."""
    pairs = [_pair(text, f"--subject number {n}") for n, text in enumerate(options, 1)]
    if from_file is not None:
        lines = sys.stdin.read() if str(from_file) == "-" else _read(from_file)
        pairs += [_pair(line, f"line {n} of the file") for n, line in enumerate(lines.splitlines(), 1) if line.strip()]
    return pairs


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"--from {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"--from {path}: the file is not UTF-8") from None


def _pair(text: str, where: str) -> tuple[str, str]:
    kind, equals, subject = text.strip().partition("=")
    if not equals or not kind or not subject:
        raise typer.BadParameter(f"{where} is not of the form KIND=ID")
    return kind, subject
