"""The demonstration's raw files, made from what every installation has: docstrings of installed packages and scikit-learn's
tables.

They are written as a user's lake would have them: one big export a day, yesterday's export beside it, extracts that somebody made
for one package, the same table as CSV and as Parquet.
"""

from __future__ import annotations

import ast
import csv
import gzip
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn import datasets

Record = dict[str, str]

FILES_A_PACKAGE = 14
RECORDS_A_PACKAGE = 150
MAX_SOURCE_BYTES = 120_000
MIN_TEXT = 40
N_EXTRACTS = 6
_STDLIB = (  # packages of the standard library: what the selection aims at
    "asyncio",
    "collections",
    "concurrent",
    "email",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "unittest",
    "urllib",
    "xml",
)
_EXAM = (  # modules of it for an evaluation, of which installed packages hold copies
    "argparse",
    "datetime",
    "functools",
    "shutil",
    "socket",
    "traceback",
    "zipfile",
)

SETTINGS = """\
# The demonstration's lake. Everything it needs is in this folder; delete the folder and it is gone.

[lake]
root = "lake"
sample_rows = 8000                 # statistics from about so many rows; a subject outside them moves one shard only

[tables.docs]                      # today's export: the docstrings of the installed packages
source  = ["raw/docs/today.jsonl.gz"]
subject = { kind = "package", column = "package" }
text    = "text"

[tables.docs_yesterday]            # yesterday's export, which today's contains
source  = ["raw/docs/yesterday.jsonl"]
subject = { kind = "package", column = "package" }
text    = "text"

[tables.stdlib]                    # docstrings of the standard library: what the selection aims at
source  = ["raw/stdlib.csv"]
text    = "text"

[tables.exam]                      # docstrings that models are to be examined on: no copy of them may be trained on
source  = ["raw/exam.csv"]
text    = "text"

[collections.extracts]             # somebody's extracts, one file a package, contained in the export
source  = "raw/extracts/*.csv"
subject = { kind = "package", column = "package" }
text    = "text"

[collections.sklearn]              # scikit-learn's tables, each as CSV and as Parquet
source  = ["raw/sklearn/**/*.csv", "raw/sklearn/**/*.parquet"]

[tables.digits]                    # 8 x 8 pixels in one list column
source  = ["raw/digits.parquet"]

[datasets.docs]
pool   = ["docs", "docs_yesterday"]
target = "stdlib"
select = { keep_fraction = 0.5, filters = { word_count = [8, inf] }, near_duplicates = {}, decontaminate = { tables = "exam" } }
prune  = { method = "density", keep_fraction = 0.8, n_clusters = 32 }

[datasets.digits]
pool   = ["digits"]
prune  = { method = "prototypes", keep_fraction = 0.7, n_clusters = 20 }

[models.kind-of-docstring]
dataset = "docs"
kind    = "text"
label   = "kind"
shards  = 4
slices  = 4

[models.digits]
dataset = "digits"
kind    = "image"
label   = "digit"
shards  = 2
slices  = 2
epochs  = 20
learning_rate = 0.01
"""


def write_raw(directory: Path) -> str:
    """Write lethe.toml and all raw files; returns the package that the demonstration will forget. An existing folder is kept as
    it is.
    """
    chosen = directory / "raw" / "forget.txt"
    if not chosen.exists():
        (directory / "raw").mkdir(parents=True, exist_ok=True)
        (directory / "lethe.toml").write_text(SETTINGS, encoding="utf-8")
        records = list(installed_docstrings())
        _write_docs(directory / "raw", records)
        _write_stdlib(directory / "raw")
        _write_sklearn(directory / "raw")
        chosen.write_text(_package_to_forget(records), encoding="utf-8")
    return chosen.read_text(encoding="utf-8")


# --- docstrings -------------------------------------------------------------------------------------------------------


def installed_docstrings() -> Iterator[Record]:
    """Docstrings of every installed distribution, read from source files without importing anything."""
    seen = set[str]()
    for dist in sorted(importlib.metadata.distributions(), key=lambda d: str(d.metadata["Name"]).lower()):
        package = str(dist.metadata["Name"]).lower()
        if package not in seen:
            seen.add(package)
            sources = sorted(str(dist.locate_file(f)) for f in dist.files or () if f.suffix == ".py" and ".." not in f.parts)
            yield from _limited(package, [Path(s) for s in sources])


def _limited(package: str, sources: Sequence[Path]) -> Iterator[Record]:
    n_files = n_records = 0
    for path in sources:
        if n_files == FILES_A_PACKAGE or n_records >= RECORDS_A_PACKAGE:
            return
        found = list(_docstrings_of(package, path))
        n_files, n_records = n_files + bool(found), n_records + len(found)
        yield from found


def _docstrings_of(package: str, path: Path) -> Iterator[Record]:
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            return
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return  # a package may ship templates or test files that are no Python
    parts = path.with_suffix("").parts
    module = ".".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else path.stem
    yield from _walk(tree, package, module, module, "module")


def _walk(node: ast.AST, package: str, module: str, name: str, kind: str) -> Iterator[Record]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = (ast.get_docstring(node) or "").encode("utf-8", "replace").decode()
        if len(text) >= MIN_TEXT:
            yield {"package": package, "module": module, "name": name, "kind": kind, "text": text}
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from _walk(child, package, module, f"{name}.{child.name}", "class")
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _walk(child, package, module, f"{name}.{child.name}", "method" if kind == "class" else "function")


def _write_docs(raw: Path, records: Sequence[Record]) -> None:
    (raw / "docs").mkdir(parents=True, exist_ok=True)
    (raw / "extracts").mkdir(exist_ok=True)
    with gzip.open(raw / "docs" / "today.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as file:
        file.writelines(json.dumps(r) + "\n" for r in records)
    with (raw / "docs" / "yesterday.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for n, r in enumerate(records) if n % 10)
        file.write('{"package": "a line that the export did not finish", "module": \n')
    packages = sorted({r["package"] for r in records})
    chosen = [*packages[:: max(1, len(packages) // N_EXTRACTS)], _package_to_forget(records)]
    for number, package in enumerate(dict.fromkeys(chosen), 1):
        # Not named for the package: a name is not erased with the rows.
        _write_csv(raw / "extracts" / f"ticket-{number:02d}.csv", [r for r in records if r["package"] == package])


def _write_csv(path: Path, records: Sequence[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["package", "module", "name", "kind", "text"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(records)


def _write_stdlib(raw: Path) -> None:
    root = Path(ast.__file__).parent
    packages = [p for package in _STDLIB for p in sorted((root / package).glob("*.py"))]
    modules = [p for module in _EXAM for p in (root / f"{module}.py", *sorted((root / module).glob("*.py"))) if p.exists()]
    for name, sources in (("stdlib", packages), ("exam", modules)):
        _write_csv(raw / f"{name}.csv", [r for p in sources for r in _docstrings_of(f"python {sys.version_info.major}", p)])


def _package_to_forget(records: Sequence[Record]) -> str:
    """The package with the median number of docstrings: neither a giant nor a crumb."""
    counts = dict[str, int]()
    for record in records:
        counts[record["package"]] = counts.get(record["package"], 0) + 1
    ranked = sorted(counts, key=lambda p: (counts[p], p))
    return ranked[len(ranked) // 2]


# --- scikit-learn -----------------------------------------------------------------------------------------------------


def _write_sklearn(raw: Path) -> None:
    loaders = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
    }
    for folder in ("csv", "parquet"):
        (raw / "sklearn" / folder).mkdir(parents=True, exist_ok=True)
    for name, load in loaders.items():
        frame = load(as_frame=True).frame
        frame.to_csv(raw / "sklearn" / "csv" / f"{name}.csv", index=False)
        frame.to_parquet(raw / "sklearn" / "parquet" / f"{name}.parquet", index=False)
    frame = datasets.load_iris(as_frame=True).frame
    frame[frame["target"] == 1].to_csv(raw / "sklearn" / "csv" / "iris_versicolor.csv", index=False)
    digits = datasets.load_digits()
    pixels = pa.array(digits.data.astype("int16").tolist(), pa.list_(pa.int16()))
    pq.write_table(pa.table({"pixels": pixels, "digit": pa.array(digits.target.astype("int16"))}), raw / "digits.parquet")
