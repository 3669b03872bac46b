"""The residue scan of a whole installation: lists every object and name, has workers decode them, and adds up what they found."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.cluster import Workers
from infra.contracts import LetheError
from infra.files import filesystem
from infra.ids import I64
from infra.lake import Lake
from infra.retired import MEMBERS, RESIDUAL, entries, retired
from infra.settings import Settings, SubjectSettings
from infra.subjects import remembered
from tasks.forget.frames import scan_objects
from tasks.forget.locate import telling_names
from tasks.forget.plan import RECORDS, knows, sources_of, subjects_of, subjects_of_tables
from tasks.forget.residue import Findings, Target, Wanted
from tasks.forget.seal import Seal

_GROUP_BYTES = 32 << 20
_GROUP_OBJECTS = 64
_SEALED = "requests/"
_SECRET = ("secret", "public_key.pem")


class ResidueError(LetheError):
    """Something of the erased is still there; no certificate is written."""


@dataclass(frozen=True)
class Residue:
    """What the scan decoded and found: places of hits and of mentions, never their values.

    `n_names` counts the tables and raw files that have an id in their name.
    """

    n_objects: int
    n_bytes: int
    n_cells: int
    n_opaque: int
    hits: tuple[str, ...]
    mentions: tuple[str, ...]
    n_names: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        counts = {name: value for name, value in asdict(self).items() if name not in ("hits", "mentions")}
        return {**counts, "n_hits": len(self.hits), "n_mentions": len(self.mentions)}


def scan(
    lake: Lake, settings: Settings, sought: Mapping[str, frozenset[str]], seals: Sequence[Seal], workers: Workers
) -> Residue:
    """Decode everything in the lake, the tracking store and the private folder; look for the subjects and their erased rows."""
    start = time.perf_counter()
    row_ids, hashes = _gone(seals)
    tables, files = _named_for(lake, sought)
    forms, bare = _written_forms(lake, tables)
    names = tuple(sorted({*forms, *files, *map(urllib.parse.quote, files)}, key=lambda name: (-len(name), name)))
    wanted = Wanted(lake.keys, dict(sought), subjects_of_tables(lake, settings), row_ids, hashes, names, bare)
    groups = list(_groups([*_lake_targets(lake, settings, sought), *_other_targets(settings, sought)]))
    found = sum(workers.map(scan_objects, groups, wanted), Findings())
    return Residue(**asdict(found), n_names=len(tables) + len(files), seconds=round(time.perf_counter() - start, 3))


def refuse_residue(residue: Residue, n_named: int = 20) -> None:
    """Raises `ResidueError` with the places when something was found."""
    if residue.hits:
        more = f"; and {len(residue.hits) - n_named} more" if len(residue.hits) > n_named else ""
        raise ResidueError(
            f"the residue scan found {len(residue.hits)} places: {'; '.join(residue.hits[:n_named])}{more}. "
            "No certificate was written. Remove what lies there, then run: lethe forget"
        )


def _gone(seals: Sequence[Seal]) -> tuple[I64, frozenset[int]]:
    """Ids and hashes of erased rows of which no copy was meant to stay."""
    ids, hashes = [np.empty(0, np.int64)], set[int]()
    for seal in seals:
        rows = seal.rows.filter(seal.rows["gone"])
        ids.append(np.asarray(rows["row_id"]).astype(np.int64))
        lanes = zip(np.asarray(rows["low"]), np.asarray(rows["high"]), strict=True)
        hashes.update(int(low) | int(high) << 64 for low, high in lanes)
    joined = np.unique(np.concatenate(ids))
    return joined[joined >= 0], frozenset(hashes)


# --- names that stay ------------------------------------------------------------------------------------------------------------


def _named_for(lake: Lake, sought: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]]:
    """Tables and raw files with the id of a requested subject in their name."""
    files = sorted({uri for _, uri in sources_of(lake).values()})
    listed = {name for entry in entries(lake).values() for name in (entry.table, *entry.parents)}
    tables = sorted({*lake.tables("records"), *(RECORDS + name for name in listed)})
    return telling_names(tables, sought, lake.keys), telling_names(files, sought, lake.keys)


def _written_forms(lake: Lake, tables: Sequence[str]) -> tuple[set[str], frozenset[str]]:
    """How logs and folders write the names of tables, and the names that are one word, which may be an id and no name."""
    short = [table.removeprefix(RECORDS) for table in tables]
    whole = [*tables, *(stage + name for stage in (MEMBERS, RESIDUAL) for name in short)]
    forms = {*whole, *(_folder_of(lake, table) for table in whole), *(name for name in short if "/" in name)}
    return forms, frozenset(name for name in short if "/" not in name)


def _folder_of(lake: Lake, table: str) -> str:
    """A table's folder below the lake's root."""
    return lake.uri(table)[len(lake.root) + 1 :]


# --- what there is to scan ------------------------------------------------------------------------------------------------------


def _lake_targets(lake: Lake, settings: Settings, sought: Mapping[str, frozenset[str]]) -> Iterator[Target]:
    """Every object and folder under the lake's root, with what is known about the columns of its table."""
    known = {_folder_of(lake, table): _columns_of(lake, settings, table, sought) for table in lake.tables("records")}
    for name, entry in retired(lake).items():  # what lies beside a recipe has the columns of its table
        subjects = subjects_of(lake, settings, name) or remembered(entry.params)
        known[_folder_of(lake, RESIDUAL + name)] = _folded(subjects, sought) if subjects else None
    named = _all_columns(settings, sought)
    for target in walk(lake.root):
        columns = known.get("/".join(target.name.split("/")[:2]))
        yield _described(target, named if columns is None else columns, columns is not None)


def _described(target: Target, columns: frozenset[str], known: bool) -> Target:
    return Target(target.uri, target.name, target.n_bytes, columns, known)


def _columns_of(lake: Lake, settings: Settings, table: str, sought: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """The subject columns of a table that are of a kind asked for; None where neither the settings nor its log tell of any."""
    subjects = subjects_of(lake, settings, table)
    if not subjects and not knows(settings, table):
        return None
    return _folded(subjects, sought)


def _all_columns(settings: Settings, sought: Mapping[str, frozenset[str]]) -> frozenset[str]:
    sections = [*settings.tables.values(), *settings.collections.values()]
    return _folded((subject for section in sections for subject in section.subjects), sought)


def _folded(subjects: Iterable[SubjectSettings], sought: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset(subject.column.casefold() for subject in subjects if subject.kind in sought)


def _other_targets(settings: Settings, sought: Mapping[str, frozenset[str]]) -> Iterator[Target]:
    """The tracking store, its artifacts, the certificates, and the private folder without the secret and the sealed plans."""
    columns = _all_columns(settings, sought)
    for prefix, root in _other_roots(settings):
        for target in walk(root):
            if prefix == "private" and (target.name.startswith(_SEALED) or target.name in _SECRET):
                continue
            yield Target(target.uri, f"{prefix}/{target.name}", target.n_bytes, columns)


def _other_roots(settings: Settings) -> list[tuple[str, str]]:
    roots = [("artifacts", settings.artifacts_uri), ("private", str(settings.private_dir))]
    roots.append(("certificates", str(settings.home / "certificates")))
    database = tracking_file(settings)
    if database is not None:
        roots += [("tracking", str(path)) for path in sorted(database.parent.glob(database.name + "*"))]
    return roots


def tracking_file(settings: Settings) -> Path | None:
    """The SQLite file of the tracking store; None where a server keeps it."""
    uri = settings.tracking_uri
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def walk(root: str) -> Iterator[Target]:
    """Every object under a root, and every folder (its URI ends in a slash); a root may be one file."""
    fs, path = filesystem(root)
    if not fs.exists(path):
        return
    scheme = root.partition("://")[0] + "://" if "://" in root else ""
    found = fs.find(path, withdirs=True, detail=True)
    for name, info in sorted(found.items()):
        relative = str(name)[len(path) :].strip("/") or Path(str(name)).name
        is_folder = info["type"] == "directory"
        yield Target(f"{scheme}{name}{'/' if is_folder else ''}", relative, int(info.get("size") or 0))


def _groups(targets: Sequence[Target]) -> Iterator[list[Target]]:
    """Targets in groups worth a worker's while."""
    group, n_bytes = list[Target](), 0
    for target in targets:
        if group and (n_bytes + target.n_bytes > _GROUP_BYTES or len(group) >= _GROUP_OBJECTS):
            yield group
            group, n_bytes = [], 0
        group.append(target)
        n_bytes += target.n_bytes
    if group:
        yield group
