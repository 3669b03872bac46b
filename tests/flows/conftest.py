"""One Prefect server for all flow tests; it starts once and keeps nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.update(PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")  # for the server too, and before Prefect reads them

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOGGING_LEVEL, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_LEVEL: "ERROR"}
    with prefect_test_harness(server_startup_timeout=180), temporary_settings(quiet):
        yield
