"""What training's bits depend on beside the data: versions, instruction sets, threads, device. And how to hold it still."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from infra.contracts import LetheError
from infra.ids import key_of

# One shard at a time in a process: seeds and the number of threads belong to the process, not to the thread.
_ALONE = threading.RLock()
_PINS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_TWO_BUFFERS = ":4096:8"  # one of the two sizes for which cuBLAS promises equal bits


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
        facts |= {"cudnn": str(torch.backends.cudnn.version()), "cublas": os.environ.get(_WORKSPACE, _TWO_BUFFERS)}
    return facts | {name: os.environ[name] for name in _PINS if name in os.environ}


@contextmanager
def deterministic(device: str = "cpu") -> Iterator[None]:
    """One thread, deterministic algorithms only, float32 in full, and the process's generators and settings put back
    afterwards."""
    with _ALONE, torch.random.fork_rng(devices=_gpus(device)):
        threads = torch.get_num_threads()
        before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, _precisions()
        os.environ.setdefault(_WORKSPACE, _TWO_BUFFERS)
        torch.set_num_threads(1)
        _hold(True, False, ["ieee"] * len(before[2]))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            _hold(*before)


def _rounded() -> tuple[Any, ...]:
    """What may round float32 to TF32 or bfloat16: convolutions on a GPU do by default, the rest where somebody said so."""
    return torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv


def _precisions() -> list[str]:
    return [backend.fp32_precision for backend in _rounded()]


def _hold(algorithms: bool, benchmark: bool, precisions: Sequence[str]) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.backends.cudnn.benchmark = benchmark
    for backend, precision in zip(_rounded(), precisions, strict=True):
        backend.fp32_precision = precision


def _gpus(device: str) -> list[int]:
    return [torch.cuda.current_device()] if device == "cuda" else []
