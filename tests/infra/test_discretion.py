"""What a library says about a value stays with the value."""

from __future__ import annotations

import errno
import pickle

import pyarrow as pa
import pytest

from infra.contracts import LetheError, StaleSnapshot
from infra.discretion import UnexpectedError, discreet


@discreet
def cast(values: list[str]) -> pa.Array:
    """Numbers of texts."""
    return pa.array(values).cast(pa.int64())


def test_a_value_in_a_librarys_message_is_not_passed_on() -> None:
    with pytest.raises(UnexpectedError) as caught:
        cast(["4711-jane"])
    assert "ArrowInvalid" in str(caught.value)
    assert "test_discretion.py" in str(caught.value)
    assert "jane" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_goes_well_and_our_own_errors_pass() -> None:
    assert cast(["1", "2"]).to_pylist() == [1, 2]
    assert cast.__name__ == "cast"

    @discreet
    def stale() -> None:
        raise StaleSnapshot("t@1 is gone")

    with pytest.raises(StaleSnapshot, match="t@1"):
        stale()
    assert pickle.loads(pickle.dumps(cast))(["3"]).to_pylist() == [3]


def test_what_a_store_says_is_passed_on_and_no_more() -> None:
    @discreet
    def failing(words: str) -> None:
        raise RuntimeError(words)

    with pytest.raises(UnexpectedError, match=r"RuntimeError \(503 Service Unavailable\)"):
        failing("Generic S3 error: \x1b[1m503 Service Unavailable\x1b[0m: jane")
    with pytest.raises(UnexpectedError) as caught:
        failing("Jane Doe lives at 404 Elm")
    assert "Elm" not in str(caught.value)


def test_debugging_shows_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_DEBUG", "1")
    with pytest.raises(pa.ArrowInvalid, match="jane"):
        cast(["jane"])
    with pytest.raises(pa.ArrowInvalid) as caught:
        cast(["jane"])
    assert not isinstance(caught.value, LetheError)


def test_what_the_operating_system_says_is_passed_on() -> None:
    @discreet
    def full(error: Exception) -> None:
        raise error from OSError(errno.ENOSPC, "jane.csv")

    for error in (RuntimeError("jane"), OSError(errno.EFBIG, "jane"), ValueError("jane.csv: (os error 28)")):
        with pytest.raises(
            UnexpectedError, match=r"(No space left on device|File too large)\. Make room and run it again"
        ) as caught:
            full(error)
        assert "jane" not in str(caught.value)
