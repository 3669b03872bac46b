"""prefect.yaml and `lethe up` say the same, and the servers of `lethe up` really run a flow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from small_lake import write_project

from flows.deployments import all_of, as_yaml

ROOT = Path(__file__).parents[2]


def test_prefect_yaml_is_what_deployments_say() -> None:
    assert yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8")) == as_yaml()


def test_every_entrypoint_is_a_flow_of_that_name() -> None:
    import importlib  # noqa: PLC0415

    assert {d.name for d in all_of()} == {"curate", "train", "forget", "maintain", "retire", "restore"}
    for deployment in all_of():
        module, _, name = deployment.flow.partition(":")
        assert getattr(importlib.import_module(module), name).name == deployment.name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_runs_a_triggered_curate(tmp_path: Path) -> None:
    config = write_project(tmp_path / "project")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "up", "--config", str(config), "--json"]
    with subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert len(said["deployments"]) == 6
            api = {**clean, "PREFECT_API_URL": said["prefect"] + "/api"}
            run = [
                sys.executable,
                "-m",
                "prefect",
                "deployment",
                "run",
                "curate/curate",
                "--param",
                'names=["glyphs"]',
                "--watch",
            ]
            subprocess.run(run, env=api, check=True, timeout=300)
            assert urllib.request.urlopen(said["mlflow"] + "/health", timeout=5).status == 200
            assert (tmp_path / "project" / "lake" / "training_set" / "glyphs").is_dir()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    time.sleep(1)
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(said["prefect"], timeout=2)
