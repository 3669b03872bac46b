"""What [retention] may say, and which of its patterns a table falls under."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.price_book import RetentionSettings
from infra.settings import load_settings

TOML = """
[retention]
access_logs = "logs/*.gz"
keep = ["raw/*"]
[retention.accesses]
orders = 30.0
"hot/*" = 4
"hot/a*" = 5
[retention.max_rebuild_s_of]
"*" = 60
orders = 5
"""


def test_a_name_comes_before_patterns_and_these_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "lethe.toml").write_text(TOML)
    prices = load_settings(tmp_path).retention
    assert [prices.accesses_of(table) for table in ("orders", "hot/ab", "cold")] == [30.0, 4.0, None]
    assert [prices.limit_s(table) for table in ("orders", "hot/ab")] == [5.0, 60.0]
    assert (prices.kept_by("raw/x"), prices.kept_by("raw")) == ("raw/*", None)
    assert prices.access_logs == ("logs/*.gz",)


def test_without_patterns_the_limit_is_that_of_all() -> None:
    assert (RetentionSettings().limit_s("x"), RetentionSettings().limit_pattern("x")) == (3600.0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage_gb_month": -0.1},
        {"archive_stay_days": 0},
        {"rebuild_gb_s": 0},
        {"accesses": {"a": -1}},
        {"max_rebuild_s": float("inf")},
        {"request_bytes": 0},
        {"price": 1},
    ],
)
def test_prices_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetentionSettings(**wrong)  # type: ignore[arg-type]
