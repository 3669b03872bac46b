"""Access logs are other people's text: whatever a line holds, counting goes on, and nobody's name comes out."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.price_book import RetentionSettings
from infra.settings import LakeSettings, Settings
from tasks.dedup.access import Accesses, accesses_of, count_accesses
from tasks.dedup.access_logs import logged_accesses

TABLES = ("orders", "hot/a", "hot/a/b", "idle")


def line(
    key: str = "lake/records/orders/part-1.parquet",
    *,
    day: int = 6,
    hour: int = 0,
    who: str = "arn:aws:iam::1:user/ann",
    operation: str = "REST.GET.OBJECT",
    status: str = "206",
    bucket: str = "data",
    zone: str = "+0000",
) -> str:
    at = f"[{day:02}/Feb/2026:{hour:02}:00:38 {zone}]"
    uri = f'"GET /{bucket}/{key}?x=\\"y HTTP/1.1"'
    return f'79a59d {bucket} {at} 192.0.2.3 {who} 3E57427F3 {operation} {key} {uri} {status} - 113 100 7 - "-" "agent" -\n'


def counted(*lines: str, **more: object) -> Accesses:
    return count_accesses(lines, "data", "lake/records/", TABLES, **more)  # type: ignore[arg-type]


def reads(*lines: str) -> dict[str, int]:
    """Accesses over a span of one day, which is a month's by 30.4."""
    return {table: round(n * 12 / 365.25) for table, n in counted(*lines).per_month.items() if n}


def test_a_line_of_the_manual_is_read() -> None:
    found = counted(line())
    assert (found.n_lines, found.n_bad) == (1, 0)
    assert found.per_month == pytest.approx({"orders": 365.25 / 12, "hot/a": 0.0, "hot/a/b": 0.0, "idle": 0.0})


def test_one_requester_in_one_hour_is_one_access() -> None:
    parts = [line(f"lake/records/orders/part-{i}.parquet") for i in range(20)]
    assert reads(*parts) == {"orders": 1}
    assert reads(*parts, line(who="bob"), line(hour=1), line(hour=23)) == {"orders": 4}
    # 00:00 and 01:00 an hour further east are one hour.
    assert reads(line(hour=0), line(hour=1, zone="+0100")) == {"orders": 1}


def test_the_months_are_those_that_the_logs_span() -> None:
    found = counted(line(day=1), line(day=2), line(day=11))
    assert found.span_s == 10 * 86_400
    assert found.per_month["orders"] == pytest.approx(3 / (10 * 12 / 365.25))


def test_a_table_in_the_folder_of_another_is_itself() -> None:
    keys = ["hot/a/b/x.parquet", "hot/a/part.parquet", "hot/a/day=1/x.parquet", "hot/a/b/k=%2520v/x.parquet", "gone/x.parquet"]
    assert reads(*(line(f"lake/records/{key}", hour=i) for i, key in enumerate(keys))) == {"hot/a": 2, "hot/a/b": 2}


@pytest.mark.parametrize(
    "other",
    [
        line("lake/records/orders/_delta_log/0.parquet"),
        line("lake/records/orders/_delta_log/0.json"),
        line(operation="REST.PUT.OBJECT"),
        line(operation="REST.HEAD.OBJECT"),
        line(status="403"),
        line(bucket="other"),
        line("lake/selection/orders/part-1.parquet"),
        line("lake/records/part-1.parquet"),
    ],
)
def test_what_is_no_reading_of_rows_does_not_count(other: str) -> None:
    found = counted(other, line(hour=3))
    assert found.n_bad == 0 and reads(other, line(hour=3)) == {"orders": 1}


def test_logs_that_say_nothing_of_the_lake_tell_nothing() -> None:
    assert counted(line(bucket="other"), line("else/x.parquet"), "garbage").per_month == {}
    assert counted().per_month == {}


def test_requesters_can_be_left_out() -> None:
    assert counted(line(who="arn:lethe"), line(who="ann"), ignore=("arn:*",)).per_month["orders"] == pytest.approx(30.4375)


def test_hostile_lines_are_skipped_and_counted() -> None:
    bad = [
        "\x00\xff",
        "a b c",
        line().replace("06/Feb", "31/Feb"),
        line().replace("Feb", "Foo"),
        line().replace("[06", "[xx"),
        line()[:60],
        line().replace(" 206 ", " twohundred "),
        "x" * 10_000_000,
        '"' * 50_000,
        "a b [" + "\\" * 60_000,
        line("lake/records/orders/" + "y" * 70_000 + ".parquet"),
    ]
    found = counted(*bad, line(), "\n", "  \n")
    assert (found.n_lines, found.n_bad) == (len(bad) + 1, len(bad))
    assert found.per_month["orders"] == pytest.approx(30.4375)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=80), st.integers(0, 200).map(lambda i: line()[:i] + line()[i + 3 :])), max_size=20))
def test_no_line_is_fatal(lines: list[str]) -> None:
    found = counted(*lines)
    assert found.n_bad <= found.n_lines <= len(lines)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_lines_does_not_matter(seed: int) -> None:
    lines = [line(day=1 + i % 3, hour=i % 5, who=f"u{i % 2}") for i in range(30)]
    mixed = random.Random(seed).sample(lines, len(lines))
    assert counted(*mixed) == counted(*lines)


def test_the_users_word_comes_before_the_logs_and_these_before_the_price_book() -> None:
    prices = RetentionSettings(accesses={"hot/*": 9.0, "hot/a": 2.0}, accesses_per_month=0.5)
    logged = Accesses({"orders": 4.0, "hot/a": 7.0})
    assert accesses_of(TABLES, prices, logged) == {"orders": 4.0, "hot/a": 2.0, "hot/a/b": 9.0, "idle": 0.5}


# --- files ---------------------------------------------------------------------------------------------------------------------


def lake_with(home: Path, logs: tuple[str, ...], root: str = "s3://data/lake") -> Settings:
    return Settings(home=home, lake=LakeSettings(root=root), retention=RetentionSettings(access_logs=logs))


def test_files_may_be_compressed_and_broken_off(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    whole = gzip.compress("".join(line(hour=i % 24, day=1 + i // 24) for i in range(480)).encode())
    (tmp_path / "logs" / "a.gz").write_bytes(whole)
    (tmp_path / "logs" / "b.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "logs" / "c.gz").write_bytes(b"no gzip")
    (tmp_path / "plain").write_bytes(line(day=21).encode() + b"\xff\xfe\n")
    found = logged_accesses(lake_with(tmp_path, ("logs/*.gz", "plain", "none/*")), TABLES)
    assert found.n_lines > 480 and found.n_bad == 3
    assert found.per_month["orders"] == pytest.approx(481 / (found.span_s / 86_400) * 365.25 / 12)


def test_a_lake_in_a_folder_has_no_logs(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text(line())
    assert logged_accesses(lake_with(tmp_path, ("plain",), root="lake"), TABLES) == Accesses({})
    assert logged_accesses(lake_with(tmp_path, ()), TABLES) == Accesses({})


def test_what_comes_out_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text(line(who="arn:aws:iam::1:user/ann") * 3)
    assert "ann" not in repr(logged_accesses(lake_with(tmp_path, ("plain",)), TABLES))
