"""Ingest against pandas.read_csv + write_deltalake and against the floor, pyarrow.csv + pyarrow.parquet, on the same files.

Run: python tests/bench/bench_ingest.py [--data DIR] [--quick] [--only packs large ...] [--repeats 3].

Each measurement is a process of its own. It imports what it needs and ingests one tiny file first, so that neither side's imports
nor its first call (Numba loads its compiled kernels from disk) count: "cpu s" and "wall s" are what comes after. CPU seconds are
user + system of the process and its children; the peak is that of the largest process. Medians of the repeats, sides in turn.
Ratios are within one run; a figure is how many times less CPU we take. pandas and we write one Delta table a file, the floor one
Parquet file, in one thread and with our compression; neither has row ids, digests, quarantine or lossless types.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.harness import DATA, Options, Row, environment, table, times, unpacked, verdict  # noqa: E402 - run as a script

PACKS = ("snapshots", "santos", "rdatasets")
SIDES = ("lethe", "pandas", "pyarrow")
WARM = b"id,name,score,day\n1,Ann,0.5,2024-01-01\n2,,,\n"
_GIB = 1 << 30
_QUICK_BYTES = 100 << 20
_PIECE_BYTES = 24 << 20

Ingest = Callable[[Path, Path], dict[str, Any]]
Figures = dict[str, float]


# --- the sides, each in a process of its own -----------------------------------------------------------------------------------


def usage() -> float:
    """CPU seconds of this process and its children so far."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def each_file(source: Path, one: Callable[[Path, int], int]) -> dict[str, Any]:
    """Every CSV of a folder; a competitor's failure is a figure, not a crash."""
    n_rows = n_failed = 0
    for place, path in enumerate(sorted(source.rglob("*.csv"))):
        try:
            n_rows += one(path, place)
        except Exception as error:  # noqa: BLE001 - see above
            print(f"  {path.name}: {type(error).__name__}", file=sys.stderr)
            n_failed += 1
    return {"n_rows": n_rows, "n_failed": n_failed}


def with_pandas() -> Ingest:
    """Read and write each file as a data engineer would by hand."""
    import pandas as pd  # noqa: PLC0415 - one side only
    from deltalake import write_deltalake  # noqa: PLC0415

    def run(source: Path, out: Path) -> dict[str, Any]:
        def one(path: Path, place: int) -> int:
            frame = pd.read_csv(path, on_bad_lines="skip", encoding_errors="replace", low_memory=False)
            write_deltalake(str(out / str(place)), frame)
            return len(frame)

        return each_file(source, one)

    return run


def with_pyarrow() -> Ingest:
    """Parse and write, a block at a time in one thread: what no ingest can do without."""
    import pyarrow as pa  # noqa: PLC0415 - one side only
    from pyarrow import csv  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    pa.set_cpu_count(1)

    def one(path: Path, sink: Path) -> int:
        reader = csv.open_csv(path, read_options=csv.ReadOptions(use_threads=False, block_size=4 << 20))
        texts = [field.name for field in reader.schema if pa.types.is_string(field.type)]
        others = [name for name in reader.schema.names if name not in texts]
        options: dict[str, Any] = {"use_dictionary": texts or False, "write_statistics": others or False}
        n_rows = 0
        with pq.ParquetWriter(sink, reader.schema, compression="zstd", compression_level=1, **options) as writer:
            for batch in reader:
                writer.write_batch(batch)
                n_rows += batch.num_rows
        return n_rows

    return lambda source, out: each_file(source, lambda path, place: one(path, out / f"{place}.parquet"))


def with_lethe(n_workers: int, *, blind: bool = False) -> Ingest:
    """The ingest stage, in process or on a local cluster of that many workers. `blind`: rows are not hashed."""
    from infra.cluster import cluster  # noqa: PLC0415 - one side only
    from infra.settings import Settings  # noqa: PLC0415
    from tasks.ingest.task import ingest  # noqa: PLC0415

    if blind:
        go_blind()

    def run(source: Path, out: Path) -> dict[str, Any]:
        wanted = {"device": "cpu", "n_workers": n_workers, "local_bytes": 0}
        collections = {"c": {"source": f"{source}/**/*.csv"}}
        settings = Settings.model_validate({"home": out, "collections": collections, "cluster": wanted})
        with ExitStack() as stack:
            scheduler = stack.enter_context(cluster(settings, n_bytes=1)) if n_workers > 1 else None
            wait_for(scheduler)
            start = time.monotonic()
            results = ingest.fn(settings, scheduler=scheduler)
            wall_s = time.monotonic() - start
        return {"n_rows": sum(result.rows for result in results), "n_failed": 0, "wall_s": wall_s, "settings": settings}

    return run


def wait_for(scheduler: Any) -> None:
    """Start a lazy cluster, and let its workers import what they need: a flow does that once."""
    from infra.cluster import connect  # noqa: PLC0415 - one side only

    if scheduler is not None:
        with connect(scheduler) as workers:
            workers.map(warmed, list(range(16)))


def warmed(_item: int) -> int:
    """Ingest a tiny file in a worker: its imports and compiled kernels are there then."""
    with tempfile.TemporaryDirectory() as scratch:
        warm_up(with_lethe(1), Path(scratch))
    return os.getpid()


def go_blind() -> None:
    """Rows get constant ids and the digest counts nothing: what is left is an ingest without identity."""
    import numpy as np  # noqa: PLC0415 - one side only

    from infra.ids import Digest  # noqa: PLC0415
    from tasks.ingest import rows  # noqa: PLC0415

    nothing = np.zeros((1 << 20, 2), np.uint64)
    ids = np.random.default_rng(0).integers(0, 1 << 62, 1 << 20)  # as hard to compress as the true ones
    rows.row_hashes = lambda batch, _columns, _key: nothing[: batch.num_rows]
    rows.row_ids = lambda _table, hashes, _key: ids[: len(hashes)]

    class Blind(Digest):
        @staticmethod
        def of(hashes: Any) -> Digest:
            return Digest(len(hashes))

    rows.Digest = Blind


def warm_up(run: Ingest, scratch: Path) -> None:
    source, out = scratch / "warm", scratch / "warm_out"
    for folder in (source, out):
        folder.mkdir()
    (source / "warm.csv").write_bytes(WARM)
    run(source, out)


def found_again_s(settings: Any) -> float:
    """Seconds of a second run, which reads nothing."""
    from tasks.ingest.task import ingest  # noqa: PLC0415 - one side only

    start = time.monotonic()
    return time.monotonic() - start if all(result.found for result in ingest.fn(settings)) else float("nan")


def side(name: str) -> Ingest:
    doors: dict[str, Callable[[], Ingest]] = {
        "pandas": with_pandas,
        "pyarrow": with_pyarrow,
        "lethe": lambda: with_lethe(1),
        "blind": lambda: with_lethe(1, blind=True),
        "workers": lambda: with_lethe(2),
    }
    return doors[name]()


def child(name: str, source: Path) -> None:
    """One side over one folder; prints its figures as JSON."""
    run = side(name)
    with tempfile.TemporaryDirectory() as place:
        scratch, out = Path(place), Path(place) / "out"
        out.mkdir()
        if name != "workers":  # its workers warm up themselves
            warm_up(run, scratch)
        start_s, start = usage(), time.monotonic()
        figures = run(source, out)
        figures = {"cpu_s": usage() - start_s, "wall_s": time.monotonic() - start, "rss_mb": peak_mb(), **figures}
        settings = figures.pop("settings", None)
        if settings is not None:
            figures["again_s"] = found_again_s(settings)
    print(json.dumps(figures))


def peak_mb() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(u.ru_maxrss for u in map(resource.getrusage, kinds)) / 1024


def measured(name: str, source: Path) -> Figures:
    """One side's figures, from a fresh interpreter."""
    command = [sys.executable, __file__, "--child", name, "--data", str(source)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{source.name:<10} {name:<8}", " ".join(f"{key} {value:.5g}" for key, value in figures.items()), file=sys.stderr)
    return figures


def medians(sides: Sequence[str], source: Path, n_repeats: int) -> dict[str, Figures]:
    """The median of every figure, by side; the sides take turns, so that a busy machine is busy for all."""
    runs = [{name: measured(name, source) for name in sides} for _ in range(n_repeats)]
    return {name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]} for name in sides}


# --- the files ----------------------------------------------------------------------------------------------------------------


class Files:
    """Folders of files to ingest, made of the shared data under `scratch` when they are first asked for."""

    def __init__(self, data: Path, scratch: Path) -> None:
        self._data = data
        self._scratch = scratch

    def pack(self, name: str) -> Path:
        place = self._scratch / name
        return place if place.exists() else unpacked(self._data / "lake" / f"{name}.tar.gz", place)

    def one(self, n_bytes: int) -> Path:
        """One file: a year of daily sales, again and again."""
        place = self._scratch / f"one-{n_bytes >> 20}"
        if not place.exists():
            place.mkdir()
            header, body = self._sales()
            repeated(place / "sales.csv", header, body, n_bytes)
        return place

    def many(self, n_bytes: int) -> Path:
        """Files of 24 MiB: sales, hospital stays and regional counts in turn."""
        place = self._scratch / f"many-{n_bytes >> 20}"
        if not place.exists():
            place.mkdir()
            kinds = [self._sales(), self._stays(), self._counts()]
            for i in range(max(3, n_bytes // _PIECE_BYTES)):
                repeated(place / f"{i:03d}.csv", *kinds[i % 3], _PIECE_BYTES)
        return place

    def _sales(self) -> tuple[bytes, bytes]:
        return joined(sorted(self.pack("spark_guide").rglob("retail-by-day/*.csv")))

    def _stays(self) -> tuple[bytes, bytes]:
        place = self._scratch / "subjects"
        if not place.exists():
            unpacked(self._data / "subjects.tar.gz", place)
        return joined(list(place.rglob("diabetic_data.csv")))

    def _counts(self) -> tuple[bytes, bytes]:
        return joined(sorted(self.pack("pcm_dpc").rglob("dati-regioni/*.csv")))


def joined(paths: Sequence[Path]) -> tuple[bytes, bytes]:
    """The header of the first file, and the records of all that have the same one."""
    parts = [path.read_bytes().partition(b"\n") for path in paths]
    header = parts[0][0]
    return header + b"\n", b"".join(body if body.endswith(b"\n") else body + b"\n" for head, _, body in parts if head == header)


def repeated(path: Path, header: bytes, body: bytes, n_bytes: int) -> None:
    """A file of about `n_bytes`: the header, and whole records of the body again and again."""
    whole, rest = divmod(n_bytes, len(body))
    with path.open("wb") as sink:
        sink.write(header)
        for _ in range(whole):
            sink.write(body)
        sink.write(body[: body.rfind(b"\n", 0, rest) + 1])


# --- the comparisons -----------------------------------------------------------------------------------------------------------


def compared(what: str, source: Path, n_repeats: int, *, with_target: bool) -> list[Row]:
    """CPU against both, and the peaks; with targets where the issue names them."""
    figures = medians(SIDES, source, n_repeats)
    ours = figures["lethe"]
    rows = list[Row]()
    for name, least in (("pandas", 1.5), ("pyarrow", 0.7)):
        ratio = figures[name]["cpu_s"] / ours["cpu_s"]
        said = (f">= {least}x", verdict(ratio >= least)) if with_target else ("-", "-")
        title = "pandas + write_deltalake" if name == "pandas" else "pyarrow.csv + parquet"
        rows.append(_seconds(f"ingest {what}, {title}: CPU", ours["cpu_s"], figures[name]["cpu_s"], *said))
    peak, theirs = ours["rss_mb"], figures["pandas"]["rss_mb"]
    rows.append(Row(f"ingest {what}, pandas + write_deltalake: peak", f"{peak:.0f} MB", f"{theirs:.0f} MB", times(theirs, peak)))
    return rows


def _seconds(what: str, ours: float, theirs: float, target: str, said: str) -> Row:
    return Row(what, f"{ours:.2f} s", f"{theirs:.2f} s", times(theirs, ours), target, said)


def packs(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    for name in PACKS:
        yield from compared(f"pack {name}", files.pack(name), n_repeats, with_target=False)


def large(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    yield from compared(f"one file of {n_bytes >> 20} MiB", files.one(n_bytes), n_repeats, with_target=True)
    many = files.many(n_bytes)
    n_files = len(list(many.iterdir()))
    yield from compared(f"{n_files} files of {_PIECE_BYTES >> 20} MiB", many, n_repeats, with_target=True)


def memory(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    """The peak at a quarter of the data and at all of it."""
    low, high = (medians(("lethe",), files.one(n), n_repeats)["lethe"]["rss_mb"] for n in (n_bytes // 4, n_bytes))
    met = verdict(high <= 1.1 * low)
    yield Row("ingest, peak at 1x and 4x the data", f"{high:.0f} MB", f"{low:.0f} MB", f"{high / low:.2f}x", "<= 1.1x", met)


def linear(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    """CPU at a tenth of the rows and at all of them."""
    low, high = (medians(("lethe",), files.one(n), n_repeats)["lethe"]["cpu_s"] for n in (n_bytes // 10, n_bytes))
    met = verdict(high <= 10.5 * low)
    yield Row("ingest, CPU at 1x and 10x the rows", f"{high:.2f} s", f"{low:.2f} s", f"{high / low:.2f}x", "<= 10.5x", met)


def workers(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    """Wall seconds of two workers against this process, on one file (cut into segments) and on many."""
    for what, source in (("one file", files.one(n_bytes)), ("many files", files.many(n_bytes))):
        figures = medians(("lethe", "workers"), source, n_repeats)
        one, two = figures["lethe"]["wall_s"], figures["workers"]["wall_s"]
        yield _seconds(f"ingest {what}, 2 workers against 1: wall", two, one, ">= 1.7x", verdict(one / two >= 1.7))


def identity(files: Files, n_bytes: int, n_repeats: int) -> Iterator[Row]:
    """What row ids and digests cost: the same ingest without them."""
    for what, source in (("one file", files.one(n_bytes)), ("many files", files.many(n_bytes))):
        figures = medians(("lethe", "blind"), source, n_repeats)
        whole, blind = figures["lethe"]["cpu_s"], figures["blind"]["cpu_s"]
        share = 1 - blind / whole
        title = f"ingest {what}, without row ids and digests: CPU"
        yield Row(title, f"{whole:.2f} s", f"{blind:.2f} s", f"{share:.0%} of it", "< 20%", verdict(share < 0.2))


Section = Callable[[Files, int, int], Iterator[Row]]
SECTIONS: dict[str, Section] = {
    "packs": packs,
    "large": large,
    "memory": memory,
    "linear": linear,
    "workers": workers,
    "identity": identity,
}


def rows(options: Options, *, n_bytes: int = _QUICK_BYTES, n_repeats: int = 1, only: Sequence[str] = ()) -> list[Row]:
    """The rows of all sections, or of those named."""
    with tempfile.TemporaryDirectory() as place:
        files = Files(options.data, Path(place))
        tiny = Path(place) / "tiny"
        tiny.mkdir()
        (tiny / "warm.csv").write_bytes(WARM)
        measured("lethe", tiny)  # compiles the kernels once
        return [row for name in only or SECTIONS for row in SECTIONS[name](files, n_bytes, n_repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true", help="100 MiB for 1 GiB, and each measurement once")
    parser.add_argument("--megabytes", type=int, help="for 1 GiB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=())
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.data)
        return
    n_bytes = options.megabytes << 20 if options.megabytes else _QUICK_BYTES if options.quick else _GIB
    n_repeats = 1 if options.quick else options.repeats
    print(table(rows(Options(options.data), n_bytes=n_bytes, n_repeats=n_repeats, only=options.only)))


if __name__ == "__main__":
    main()
