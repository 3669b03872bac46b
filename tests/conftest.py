"""Shared fixtures: an empty project in a temporary folder, and an environment that no outer setting reaches.

Laws are tried on the same examples in every run, so that a red run is due to the change and not to the day; `make laws` tries
them on other ones each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.lake import Lake
from infra.settings import load_settings

for profile, same_examples in (("lethe", True), ("laws", False)):
    settings.register_profile(
        profile,
        deadline=None,
        derandomize=same_examples,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
settings.load_profile("lethe")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LETHE_SECRET", "LETHE_SCHEDULER", "MLFLOW_TRACKING_URI", "LETHE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_lake(tmp_path: Path) -> Callable[..., Lake]:
    """A lake under tmp_path from the text of a lethe.toml."""

    def make(text: str = "", folder: str = "project") -> Lake:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        (home / "lethe.toml").write_text(text, encoding="utf-8")
        return Lake.open(load_settings(home))

    return make


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the repository; tests that want it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    return SHARED
