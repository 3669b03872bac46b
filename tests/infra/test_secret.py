"""The lake's secret: made once, private, never shown."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.secret import SecretError, load_keys


def test_first_use_makes_a_private_file_and_later_uses_agree(tmp_path: Path) -> None:
    first = load_keys(tmp_path / ".lethe")
    assert stat.S_IMODE((tmp_path / ".lethe" / "secret").stat().st_mode) == 0o600
    assert load_keys(tmp_path / ".lethe") == first


def test_first_uses_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: load_keys(tmp_path / ".lethe"), range(32)))
    assert len({k.row for k in keys}) == 1
    assert [p.name for p in (tmp_path / ".lethe").iterdir()] == ["secret"]


def test_the_environment_wins_and_must_be_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_SECRET", "ab" * 32)
    keys = load_keys(tmp_path / ".lethe")
    assert not (tmp_path / ".lethe").exists()
    assert keys == load_keys(tmp_path / "elsewhere")
    monkeypatch.setenv("LETHE_SECRET", "too short")
    with pytest.raises(SecretError, match="LETHE_SECRET must hold") as caught:
        load_keys(tmp_path)
    assert "too short" not in str(caught.value)


def test_keys_are_never_shown(tmp_path: Path) -> None:
    keys = load_keys(tmp_path)
    assert keys.row.hex() not in repr(keys)
    assert "secret" in repr(keys)
    assert len({keys.row, keys.subject, keys.place, keys.signing}) == 4
