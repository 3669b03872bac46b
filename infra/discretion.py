"""Errors without values: a library's message may quote a cell, and Prefect stores the messages of failed runs."""

from __future__ import annotations

import errno
import functools
import os
import re
import traceback
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import ParamSpec, TypeVar

from infra.contracts import LetheError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_ROOT = Path(__file__).parents[1]
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# What delta-rs says of a store that fails: fixed words, in colours.
_STATUSES = "|".join(f"{status.value} {re.escape(status.phrase)}" for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)
_STORE = re.compile(rf"operation timed out|error sending request|Connection reset|\b({_STATUSES})\b")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    failed = f"{door} failed with {type(error).__name__}{_system_says(error)} at {where}"
    return f"{failed}. Set LETHE_DEBUG=1 to see its message, which may quote data"


def _system_says(error: BaseException) -> str:
    """What the operating system said of an error or of one that it came from: that holds no data. Libraries in Rust put its
    number into their message."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _OS_ERROR.search(str(error))) is not None:
        number = int(found[1])
    if number is not None:
        advice = ". Make room and run it again" if number in _NO_ROOM else ""
        return f" ({os.strerror(number)}{advice})"
    if (found := _STORE.search(_COLOURS.sub("", str(error)))) is not None:
        return f" ({found[0]})"
    inner = error.__cause__ or error.__context__
    return _system_says(inner) if inner is not None else ""


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return _ROOT in path.parents and path.relative_to(_ROOT).parts[0] in ("flows", "tasks", "infra", "tests")
