"""Ingest against pandas.read_csv + write_deltalake on the same files: CPU, wall time and peak memory.

Run: python tests/bench/bench_ingest.py [--data DIR] [--megabytes 200] [--repeats 3] [--pyarrow].

Each side is a process of its own. It imports what it needs and ingests one tiny file first, so that neither side's imports nor
its first call (Numba loads its compiled kernels from disk) count: "cpu s" and "wall s" are what comes after, "start s" the CPU
seconds before. CPU seconds are user + system of the process and its children. Medians of the repeats, sides in turn. Both write
one Delta table a file. The other side has no row ids, digests, quarantine or lossless types, and skips bad lines.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKS = ("snapshots", "santos", "rdatasets")
ROOT = Path(__file__).parents[2]
SIDES = ("pandas", "lethe")
PYARROW = "pandas-pa"  # engine="pyarrow": quicker on large files, strict about bad lines
WARM = b"id,name,score,day\n1,Ann,0.5,2024-01-01\n2,,,\n"

Ingest = Callable[[Path, Path], dict[str, Any]]


def usage() -> float:
    """CPU seconds of this process and its children so far."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def with_pandas(**engine: Any) -> Ingest:
    """Read and write each file as a data engineer would by hand."""
    import pandas as pd  # noqa: PLC0415 - one side only
    from deltalake import write_deltalake  # noqa: PLC0415

    def run(source: Path, out: Path) -> dict[str, Any]:
        n_rows = n_failed = 0
        for place, path in enumerate(sorted(source.rglob("*.csv"))):
            try:
                frame = pd.read_csv(path, on_bad_lines="skip", encoding_errors="replace", **engine)
                write_deltalake(str(out / str(place)), frame)
                n_rows += len(frame)
            except Exception as error:  # noqa: BLE001 - a competitor's failure is a figure, not a crash
                print(f"  pandas: {path.name}: {type(error).__name__}", file=sys.stderr)
                n_failed += 1
        return {"n_rows": n_rows, "n_failed": n_failed}

    return run


def with_lethe() -> Ingest:
    """The ingest stage, in process."""
    sys.path.insert(0, str(ROOT))
    from infra.settings import Settings  # noqa: PLC0415 - one side only
    from tasks.ingest.task import ingest  # noqa: PLC0415

    def run(source: Path, out: Path) -> dict[str, Any]:
        settings = Settings.model_validate({"home": out, "collections": {"c": {"source": f"{source}/**/*.csv"}}})
        results = ingest.fn(settings)
        return {"n_rows": sum(result.rows for result in results), "n_failed": 0, "settings": settings}

    return run


def found_again_s(settings: Any) -> float:
    """Seconds of a second run, which reads nothing."""
    from tasks.ingest.task import ingest  # noqa: PLC0415 - one side only

    started = time.monotonic()
    return time.monotonic() - started if all(result.found for result in ingest.fn(settings)) else float("nan")


def child(side: str, source: Path) -> None:
    """One side over one folder; prints its figures as JSON."""
    run = (
        with_lethe() if side == "lethe" else with_pandas(**({"engine": "pyarrow"} if side == PYARROW else {"low_memory": False}))
    )
    with tempfile.TemporaryDirectory() as scratch:
        warm, warm_out, out = (Path(scratch) / name for name in ("warm", "warm_out", "out"))
        for folder in (warm, warm_out, out):
            folder.mkdir()
        (warm / "warm.csv").write_bytes(WARM)
        run(warm, warm_out)
        start_s, started = usage(), time.monotonic()
        figures = run(source, out)
        figures |= {"cpu_s": usage() - start_s, "wall_s": time.monotonic() - started, "start_s": start_s}
        figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        settings = figures.pop("settings", None)
        if settings is not None:
            figures["again_s"] = found_again_s(settings)
    print(json.dumps(figures))


def measured(side: str, source: Path) -> dict[str, Any]:
    """One side's figures, from a fresh interpreter."""
    command = [sys.executable, __file__, "--child", side, "--data", str(source)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def medians(sides: tuple[str, ...], source: Path, n_repeats: int) -> dict[str, dict[str, float]]:
    """The median of every figure, by side; the sides take turns, so that a busy machine is busy for all."""
    runs = [{side: measured(side, source) for side in sides} for _ in range(n_repeats)]
    return {side: {name: statistics.median(run[side][name] for run in runs) for name in runs[0][side]} for side in sides}


def prepare(data: Path, scratch: Path, megabytes: int) -> list[Path]:
    """The folders to ingest: packs as found, and one large file made of a year of daily sales."""
    for pack in PACKS:
        with tarfile.open(data / "lake" / f"{pack}.tar.gz") as archive:
            archive.extractall(scratch / pack, filter="data")
    with tarfile.open(data / "lake" / "spark_guide.tar.gz") as archive:
        archive.extractall(scratch / "sales", filter="data")
    days = [path.read_bytes() for path in sorted((scratch / "sales").rglob("retail-by-day/*.csv"))]
    header = days[0].split(b"\n", 1)[0] + b"\n"
    body = b"".join(day.split(b"\n", 1)[1] for day in days)
    (scratch / "large").mkdir()
    with (scratch / "large" / "sales.csv").open("wb") as sink:
        sink.write(header)
        for _ in range(max(1, (megabytes << 20) // len(body))):
            sink.write(body)
    (scratch / "tiny").mkdir()
    (scratch / "tiny" / "warm.csv").write_bytes(header + days[0].split(b"\n", 2)[1] + b"\n")
    return [scratch / name for name in ("tiny", *PACKS, "large")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pyarrow", action="store_true", help='also pandas with engine="pyarrow"')
    parser.add_argument("--child", choices=(*SIDES, PYARROW))
    options = parser.parse_args()
    if options.child:
        child(options.child, options.data)
        return
    sides = (*SIDES, PYARROW) if options.pyarrow else SIDES
    with tempfile.TemporaryDirectory() as scratch:
        tiny, *folders = prepare(options.data, Path(scratch), options.megabytes)
        measured("lethe", tiny)  # compiles the kernels once
        print(_line("files", "side", "rows", "failed", "cpu s", "wall s", "start s", "peak MB", "cpu ratio", "again s"))
        for folder in folders:
            report(folder, medians(sides, folder, options.repeats))


def report(folder: Path, sides: dict[str, dict[str, float]]) -> None:
    """A line a side; the ratio is how many times less CPU a side takes than pandas."""
    for side, figures in sides.items():
        seconds = [f"{figures[name]:.2f}" for name in ("cpu_s", "wall_s", "start_s")]
        ratio = sides["pandas"]["cpu_s"] / figures["cpu_s"]
        again = f"{figures['again_s']:.2f}" if "again_s" in figures else "-"
        counts = [f"{figures[name]:.0f}" for name in ("n_rows", "n_failed")]
        print(_line(folder.name, side, *counts, *seconds, f"{figures['rss_mb']:.0f}", f"{ratio:.2f}", again))


def _line(first: object, second: object, *rest: object) -> str:
    return f"{first!s:<10} {second!s:<9}" + "".join(f"{value!s:>10}" for value in rest)


if __name__ == "__main__":
    main()
