"""What can be wrong with a table's contract before any row is seen; asked when lethe.toml is read. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:  # the settings ask this module
    from infra.settings import ColumnContract, TableSettings

Complaint = tuple[list[str], str]  # keys below the table's section, and what is wrong there


def contract_complaints(section: TableSettings) -> Iterator[Complaint]:
    """What cannot be meant in a table's contract, keys and partitioning; nothing, if all is well."""
    for column, contract in section.contract.items():
        for key, said in _of_column(contract):
            yield ["contract", column, key], said
    for key in ("primary_key", "partition_by"):
        if len(set(getattr(section, key))) != len(getattr(section, key)):
            yield [key], "a column is named twice"
    yield from _ours(section)
    yield from _private_folders(section)
    yield from _left_out(section)


def _of_column(contract: ColumnContract) -> Iterator[tuple[str, str]]:
    if contract.regex is not None and (said := _bad_regex(contract.regex)):
        yield "regex", said
    if contract.range is not None and (said := _bad_range(*contract.range)):
        yield "range", said
    if contract.allowed is not None and (said := _bad_values(contract.allowed)):
        yield "allowed", said


def _bad_regex(pattern: str) -> str | None:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        said = str(error).removeprefix("Invalid regular expression: ")
        return f"{said}. Patterns are RE2's: no look-around, no back references"
    return None


def _bad_range(low: Any, high: Any) -> str | None:
    """An end is open where it is None, "" or an infinity: TOML has no null."""
    ends = [end for end in (low, high) if end is not None]
    if any(isinstance(end, bool) for end in ends) or len({isinstance(end, str) for end in ends}) > 1:
        return "both ends are numbers, or both are text (times as ISO 8601)"
    if any(isinstance(end, float) and math.isnan(end) for end in ends):
        return "nan is no bound; leave an end open with inf or -inf"
    if not any(end != "" for end in ends):
        return "both ends are open"
    if len(ends) == 2 and high != "" and low > high:
        return "the first bound is above the second"
    return None


def _bad_values(values: Sequence[Any]) -> str | None:
    if not values:
        return "it names no value, so every row would be quarantined"
    families = {bool if isinstance(value, bool) else str if isinstance(value, str) else float for value in values}
    if len(families) > 1:
        return "values of several types; write all of them as text, as numbers, or as true and false"
    if any(isinstance(value, float) and math.isnan(value) for value in values):
        return "nan equals nothing, so it cannot be allowed"
    return None


def _ours(section: TableSettings) -> Iterator[Complaint]:
    named = {"contract": [*section.contract], "primary_key": section.primary_key, "partition_by": section.partition_by}
    for key, columns in named.items():
        if any(column.lower() == "row_id" for column in columns):
            yield [key], "row_id is the lake's own column; the file's is called row_id_"


def _private_folders(section: TableSettings) -> Iterator[Complaint]:
    """Values of partition columns become names of folders, which no erasure of rows reaches."""
    private = {_root(subject.column) for subject in section.subjects} | ({section.text} if section.text else set())
    for column in section.partition_by:
        if column in private:
            yield ["partition_by"], f"column {column!r} holds personal data, which would become the name of a folder"


def _left_out(section: TableSettings) -> Iterator[Complaint]:
    if section.columns is None:
        return
    named = {"contract": [*section.contract], "primary_key": section.primary_key, "partition_by": section.partition_by}
    for key, columns in named.items():
        for column in columns:
            if column not in section.columns:
                yield [key], f"column {column!r} is not among `columns`, the ones that are kept"


def _root(path: str) -> str:
    """The column that a path starts in: `people` of `people[].id`."""
    return path.split(".", 1)[0].removesuffix("[]")
