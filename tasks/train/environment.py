"""What training's bits depend on beside the data: versions, instruction sets, threads, device. And how to hold it still."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from infra.contracts import LetheError
from infra.ids import key_of

# One shard at a time in a process: seeds and the number of threads belong to the process, not to the thread.
_ALONE = threading.RLock()
_PINS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "CUBLAS_WORKSPACE_CONFIG")


class OtherEnvironment(LetheError):
    """A worker is not like the one that the training was planned on."""


def choose_device(wanted: str) -> str:
    """ "cuda" or "cpu" for the setting auto, cpu or gpu. Raises `OtherEnvironment` when a GPU is asked for and none is here."""
    if wanted == "gpu" and not torch.cuda.is_available():
        raise OtherEnvironment('cluster.device = "gpu", and torch sees no GPU on this worker. Set device = "auto" or "cpu"')
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def fingerprint(device: str) -> dict[str, str]:
    """What must be equal for two trainings to be comparable bit by bit. Another fingerprint means: cannot be compared here."""
    cpu = torch.cpu.get_capabilities()
    isa = sorted(name for name, has in cpu.items() if has is True)
    facts = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": "1",
        "device": device,
        "cpu": str(cpu.get("cpu_name", "")),
        "cpu_isa": key_of(isa)[:16],
        "aten_isa": torch.backends.cpu.get_cpu_capability(),
    }
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
        facts |= {"cudnn": str(torch.backends.cudnn.version())}
    return facts | {name: os.environ[name] for name in _PINS if name in os.environ and name != "CUBLAS_WORKSPACE_CONFIG"}


@contextmanager
def deterministic(device: str = "cpu") -> Iterator[None]:
    """One thread, deterministic algorithms only, and the process's generators and settings put back afterwards."""
    with _ALONE, torch.random.fork_rng(devices=_gpus(device)):
        threads = torch.get_num_threads()
        before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(before[0])
            torch.backends.cudnn.benchmark = before[1]


def _gpus(device: str) -> list[int]:
    return [torch.cuda.current_device()] if device == "cuda" else []
