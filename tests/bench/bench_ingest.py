"""Ingest against pandas.read_csv + write_deltalake on the same files: CPU, wall time and peak memory, each side in a process of
its own.

Run: python tests/bench/bench_ingest.py [--data DIR] [--megabytes 200]. CPU seconds are user + system of the process and its
children, after imports. Both write one Delta table a file. The other side has no row ids, digests, quarantine or lossless types,
and skips bad lines.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

PACKS = ("snapshots", "santos", "rdatasets")
ROOT = Path(__file__).parents[2]
SIDES = ("pandas", "lethe")


def usage() -> float:
    """CPU seconds of this process and its children so far."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def with_pandas(source: Path, out: Path) -> dict[str, Any]:
    """Read and write each file as a data engineer would by hand."""
    import pandas as pd  # noqa: PLC0415 - one side only
    from deltalake import write_deltalake  # noqa: PLC0415

    started, before = time.monotonic(), usage()
    n_rows = n_failed = 0
    for place, path in enumerate(sorted(source.rglob("*.csv"))):
        try:
            frame = pd.read_csv(path, on_bad_lines="skip", encoding_errors="replace", low_memory=False)
            write_deltalake(str(out / str(place)), frame)
            n_rows += len(frame)
        except Exception as error:  # noqa: BLE001 - a competitor's failure is a figure, not a crash
            print(f"  pandas: {path.name}: {type(error).__name__}", file=sys.stderr)
            n_failed += 1
    return {"cpu_s": usage() - before, "wall_s": time.monotonic() - started, "n_rows": n_rows, "n_failed": n_failed}


def with_lethe(source: Path, out: Path) -> dict[str, Any]:
    """The ingest stage, in process."""
    sys.path.insert(0, str(ROOT))
    from infra.settings import Settings  # noqa: PLC0415 - one side only
    from tasks.ingest.task import ingest  # noqa: PLC0415

    settings = Settings.model_validate({"home": out, "collections": {"c": {"source": f"{source}/**/*.csv"}}})
    started, before = time.monotonic(), usage()
    results = ingest.fn(settings)
    cpu_s, wall_s = usage() - before, time.monotonic() - started
    again = time.monotonic()
    found = all(result.found for result in ingest.fn(settings))
    n_rows = sum(result.rows for result in results)
    again_s = time.monotonic() - again if found else float("nan")
    return {"cpu_s": cpu_s, "wall_s": wall_s, "n_rows": n_rows, "n_failed": 0, "again_s": again_s}


def child(side: str, source: Path) -> None:
    """One side over one folder; prints its figures as JSON."""
    with tempfile.TemporaryDirectory() as out:
        figures = (with_pandas if side == "pandas" else with_lethe)(source, Path(out))
    figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))


def measured(side: str, source: Path) -> dict[str, Any]:
    """One side's figures, from a fresh interpreter."""
    command = [sys.executable, __file__, "--child", side, "--data", str(source)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


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
    parser.add_argument("--child", choices=SIDES)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.data)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folders = prepare(options.data, Path(scratch), options.megabytes)
        measured("lethe", Path(scratch) / "tiny")  # compiles the kernels once
        print(_line("files", "side", "rows", "failed", "cpu s", "wall s", "peak MB", "cpu ratio", "again s"))
        for folder in folders:
            report(folder)


def report(folder: Path) -> None:
    """Both sides over one folder, a line each; the ratio is how many times less CPU a side takes than pandas."""
    sides = {side: measured(side, folder) for side in SIDES}
    for side, figures in sides.items():
        again = figures.get("again_s", float("nan"))
        seconds = [f"{figures[name]:.2f}" for name in ("cpu_s", "wall_s")]
        ratio = sides["pandas"]["cpu_s"] / figures["cpu_s"]
        rows = (folder.name, side, figures["n_rows"], figures["n_failed"])
        print(_line(*rows, *seconds, f"{figures['rss_mb']:.0f}", f"{ratio:.2f}", f"{again:.2f}"))


def _line(first: object, second: object, *rest: object) -> str:
    return f"{first!s:<10} {second!s:<7}" + "".join(f"{value!s:>10}" for value in rest)


if __name__ == "__main__":
    main()
