"""What a temporary Prefect server may say on the terminal of the command that started it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, load_logging_config

from flows import servers


def written_from(config: dict[str, Any]) -> set[str]:
    """The least levels of the handlers that write to a stream."""
    return {str(handler["level"]) for handler in config["handlers"].values() if "stream" in handler}


@pytest.mark.parametrize(("asked", "levels"), [(None, {"CRITICAL"}), ("DEBUG", {"0"})])
def test_a_temporary_server_is_silent_unless_its_log_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, levels: set[str]
) -> None:
    """Its logging is configured from the environment that `embedded` leaves; so are the services of this process."""
    monkeypatch.setattr(servers.os, "environ", {"PREFECT_LOGGING_LEVEL": asked} if asked else {})
    monkeypatch.setattr(logging.getLogger("EventsWorker"), "level", logging.WARNING)
    with servers.embedded(tmp_path / "lethe.toml"):
        assert written_from(load_logging_config(DEFAULT_LOGGING_SETTINGS_PATH)) == levels
        assert logging.getLogger("EventsWorker").level == (logging.WARNING if asked else logging.CRITICAL)
