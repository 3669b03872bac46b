"""Row hashing: MB/s a type and core, and what it costs beside writing the same table as zstd Parquet.

Run: python -m tests.bench.bench_rowhash [rows]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.rowhash import row_hashes
from tests.bench.harness import least_cpu_s

KEY = b"the key of a benchmark, 32 bytes"


@dataclass(frozen=True)
class Figure:
    name: str
    n_rows: int
    n_bytes: int
    hash_s: float
    write_s: float

    def __str__(self) -> str:
        speed, per_cell = self.n_bytes / self.hash_s / 1e6, self.hash_s / self.n_rows * 1e9
        written = self.n_bytes / self.write_s / 1e6
        return f"{self.name:22}{speed:10.0f}{per_cell:10.1f}{written:12.0f}{self.hash_s / self.write_s:10.1%}"


def words(n: int, n_distinct: int, n_letters: int, rng: np.random.Generator) -> pa.Array:
    letters = rng.integers(97, 123, (n_distinct, n_letters), np.uint8)
    distinct = pa.array([row.tobytes().decode() for row in letters])
    return distinct.take(pa.array(rng.integers(0, n_distinct, n)))


def decimals(unscaled: np.ndarray) -> pa.Array:
    pairs = np.stack([unscaled, unscaled >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(18, 2), len(unscaled), [None, pa.py_buffer(pairs.tobytes())])


def columns(n: int) -> Iterator[tuple[str, pa.Array]]:
    rng = np.random.default_rng(1)
    big = rng.integers(-(2**62), 2**62, n)
    cents = rng.integers(0, 10**9, n)
    yield "int64", pa.array(big)
    yield "int64, 20 % NULL", pa.array(big, mask=rng.random(n) < 0.2)
    yield "int32", pa.array(rng.integers(0, 10**6, n).astype(np.int32))
    yield "float64", pa.array(rng.normal(size=n))
    yield "float32", pa.array(rng.normal(size=n).astype(np.float32))
    yield "float64, integral", pa.array(np.floor(rng.normal(size=n) * 1e6))
    yield "bool", pa.array(rng.random(n) < 0.5)
    yield "timestamp[us]", pa.array(rng.integers(0, 2**50, n)).cast(pa.timestamp("us"))
    yield "date32", pa.array(rng.integers(0, 20_000, n).astype(np.int32)).cast(pa.date32())
    yield "decimal(18, 2)", decimals(cents)
    yield "string of 8", words(n, n, 8, rng)
    yield "string of 24", words(n, n, 24, rng)
    yield "string of 600", words(n // 20, n // 20, 600, rng)
    yield "dictionary", words(n, 1000, 12, rng).dictionary_encode()
    yield "list<float32>[8]", pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=n).astype(np.float32)), 8)


def written(table: pa.Table) -> None:
    pq.write_table(table, io.BytesIO(), compression="zstd")


def measure(name: str, table: pa.Table) -> Figure:
    names = table.column_names
    row_hashes(table.slice(0, 10), names, KEY)  # compiled, or loaded from the cache
    hash_s = least_cpu_s(lambda: row_hashes(table, names, KEY))
    return Figure(name, len(table), table.nbytes, hash_s, least_cpu_s(lambda: written(table)))


def main(n: int = 500_000) -> None:
    pa.set_cpu_count(1)
    print(f"{'type':22}{'MB/s':>10}{'ns/row':>10}{'write MB/s':>12}{'share':>10}   (share: hash time / Parquet write time)")
    flat: dict[str, pa.Array] = {}
    for name, column in columns(n):
        print(measure(name, pa.table({"c": column})))
        if len(column) == n:
            flat[name] = column
    print(measure(f"a table of {len(flat)} columns", pa.table(flat)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
