"""Errors without values: a library's message may quote a cell, and Prefect stores the messages of failed runs."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from infra.contracts import LetheError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_ROOT = Path(__file__).parents[1]


class UnexpectedError(LetheError):
    """Something failed that Lethe did not foresee. It says what and where, not with which values."""


def discreet(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let Lethe's own errors pass, which hold no values, and replace any other by one that names its type and place.

    For the doors of stages. With LETHE_DEBUG=1 in the environment the original passes, values and all.
    """

    @functools.wraps(function)
    def guarded(*args: _P.args, **options: _P.kwargs) -> _T:
        try:
            return function(*args, **options)
        except LetheError:
            raise
        except Exception as error:
            if os.environ.get("LETHE_DEBUG") == "1":
                raise
            raise UnexpectedError(_place(error, function.__name__)) from None

    return guarded


def _place(error: Exception, door: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_ours(frame.filename)] or list(frames)
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}"
    return f"{door} failed with {type(error).__name__} at {where}. Set LETHE_DEBUG=1 to see its message, which may quote data"


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return _ROOT in path.parents and path.relative_to(_ROOT).parts[0] in ("flows", "tasks", "infra", "tests")
