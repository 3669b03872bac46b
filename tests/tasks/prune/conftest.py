"""Fixtures of the pruning tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prune_lake import House


@pytest.fixture
def make_house(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], House]:
    """Lakes that share one secret, so that equal rows have equal ids in all of them."""
    monkeypatch.setenv("LETHE_SECRET", "5a" * 32)
    return lambda: House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(make_house: Callable[[], House]) -> House:
    return make_house()
