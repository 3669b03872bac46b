"""Packs: every file is in one, big ones alone, and neither order of tables nor readers matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infra.files import Folder
from infra.settings import TableSettings
from tasks.ingest.content import SEGMENT_BYTES
from tasks.ingest.packs import SMALL_BYTES, Job, calls, packs
from tasks.ingest.sources import RawFile

SIZES = st.sampled_from([0, 10, 1000, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES, 3 * SEGMENT_BYTES])


def _jobs(sizes: list[tuple[str, int]], table: TableSettings | None = None) -> list[Job]:
    section = table or TableSettings.model_validate({"source": "x"})
    named = sorted((name, n, i) for i, (name, n) in enumerate(sizes))
    return [Job(RawFile(name, f"/raw/{i}.csv", n, ""), Folder(f"/lake/{name}", b""), section) for name, n, i in named]


@given(st.lists(st.tuples(st.sampled_from("ab"), SIZES), max_size=40))
def test_every_file_is_read_once_and_big_ones_alone(sizes: list[tuple[str, int]]) -> None:
    jobs = _jobs(sizes)
    made = packs(jobs)
    assert [job for pack in made for job in pack.jobs if pack.segment.index == 0] == sorted(jobs, key=lambda j: _place(made, j))
    assert len({job.raw for pack in made for job in pack.jobs}) == len(jobs)
    for pack in made:
        assert len({job.raw.table for job in pack.jobs}) == 1
        assert len(pack.jobs) == 1 or all(job.raw.n_bytes <= SMALL_BYTES for job in pack.jobs)
        assert pack.segment.n == (3 if pack.jobs[0].raw.n_bytes > SEGMENT_BYTES else 1)
    assert [pack for call in calls(made) for pack in call] == made


def _place(made: list, job: Job) -> int:  # type: ignore[type-arg]
    return next(i for i, pack in enumerate(made) if job in pack.jobs)


def test_what_has_no_plain_line_ends_is_not_cut() -> None:
    def n_packs(uri: str, **options: str) -> int:
        section = TableSettings.model_validate({"source": "x", **options})
        return len(packs([Job(RawFile("t", uri, 3 * SEGMENT_BYTES, ""), Folder("/lake/t", b""), section)]))

    assert n_packs("/raw/a.csv") == n_packs("/raw/a.jsonl") == n_packs("/raw/a.dat", format="csv") == 3
    assert n_packs("/raw/a.csv.gz") == n_packs("/raw/a.parquet") == n_packs("zip://a.csv::/raw/a.zip") == 1
    assert n_packs("/raw/a.csv", encoding="utf-16") == 1 and n_packs("/raw/a.csv", encoding="latin-1") == 3
