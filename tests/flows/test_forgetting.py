"""The law: a lake that forgot a subject is the lake that never saw it. Tables, decisions and training sets by digest, models by
bits.

Lake A takes everything in and forgets; lake B is built without the subject's rows. Both have one secret, so equal rows have equal
ids.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_lake import bits, posts, restore, write_project

import infra.lake
import infra.tracking
from flows.curate import curate
from flows.forget import Forgotten, forget, request
from flows.train import train
from infra.contracts import LetheError
from infra.lake import Lake
from infra.settings import load_settings
from tasks.forget.certificate import contents, problems_of
from tasks.train.versions import registered_versions

PERSON = "author-007"
PERSONAL = ("author", "patient")
DECISIONS = ("selection", "scores", "training_set")


@dataclass(frozen=True)
class Project:
    """A project folder and its flows."""

    config: Path

    @property
    def lake(self) -> Lake:
        return Lake.open(load_settings(self.config))

    def build(self) -> Project:
        curate(None, str(self.config))
        train(None, str(self.config))
        return self

    def ask(self, kind: str, subject: str) -> None:
        request([(kind, subject)], str(self.config))

    def forget(self) -> Forgotten:
        result = forget(None, str(self.config))
        assert result is not None
        return result

    def digests(self) -> dict[str, str]:
        """Digests of records and of every decision; for what dedup says, the sayings themselves (versions and bytes are
        physical).
        """
        lake = self.lake
        names = [t for t in lake.tables() if t.split("/")[0] in ("records", *DECISIONS)]
        found = {name: lake.snapshot(name).digest for name in names}
        edges = lake.read(lake.snapshot("containment"), ["child", "parent", "set", "multiset", "child_digest", "parent_digest"])
        plan = lake.read(lake.snapshot("retention"), ["table", "action"])
        return {**found, "containment": _sorted(edges.to_pylist()), "retention": _sorted(plan.to_pylist())}

    def models(self) -> dict[str, dict[str, str]]:
        """Bits of every file of the aliased version of every model that holds weights, and of every checkpoint."""
        settings = load_settings(self.config)
        found = dict[str, dict[str, str]]()
        for name in settings.models:
            (current,) = [v for v in registered_versions(settings, name) if v["state"] == settings.tracking.alias]
            weights = sorted((self.config.parent / "tracking").rglob("*.safetensors"))
            found[name] = {"digest": current["digest"], "n_files": str(len(weights))}
        return {**found, "checkpoints": bits(self.config.parent / "lake" / "checkpoints")}

    def weights(self) -> set[str]:
        """The bits of every weights file that the tracking store holds."""
        return {v for k, v in bits(self.config.parent / "tracking").items() if k.endswith(".safetensors")}


def _sorted(rows: list[dict[str, Any]]) -> str:
    return "\n".join(sorted(repr(sorted(row.items())) for row in rows))


def _is_person(record: dict[str, Any]) -> bool:
    return any(record.get(column) == PERSON for column in PERSONAL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Lake A curated and trained, with a copy to go back to, and lake B, which never saw the person."""
    root = tmp_path_factory.mktemp("law")
    a = Project(write_project(root / "a")).build()
    shutil.copytree(root / "a", root / "backup")
    b = Project(write_project(root / "b", without=_is_person)).build()
    yield {"a": a, "b": b, "backup": root / "backup"}


@pytest.fixture
def lake_a(world: dict[str, Any]) -> Project:
    restore(world["backup"], world["a"].config.parent)
    return world["a"]


def test_forgetting_gives_the_lake_that_never_saw_the_person(world: dict[str, Any], lake_a: Project) -> None:
    before = lake_a.digests()
    n_posts = sum(p["author"] == PERSON for p in posts())
    lake_a.ask("person", PERSON)
    result = lake_a.forget()
    assert lake_a.digests() == world["b"].digests()
    assert lake_a.digests() != before
    assert lake_a.models() == world["b"].models()
    assert lake_a.weights() == world["b"].weights()
    erased = {t.table: t.n_erased for t in result.erased.tables if t.n_erased}
    assert erased["records/posts"] == n_posts > 0
    assert set(erased) >= {"records/posts", "records/visits"}


def test_the_certificate_says_what_happened_and_verifies(lake_a: Project) -> None:
    lake_a.ask("person", PERSON)
    (certificate,) = lake_a.forget().certificates
    path = Path(certificate.path)
    assert problems_of(path, lake_a.config.parent / ".lethe" / "public_key.pem") == []
    assert certificate.residue_hits == 0
    assert PERSON not in path.read_text(encoding="utf-8")
    assert PERSON not in repr(contents(path.read_bytes()))


def test_the_person_is_nowhere_in_the_lake_or_the_tracking_store(lake_a: Project) -> None:
    lake_a.ask("person", PERSON)
    lake_a.forget()
    lake = lake_a.lake
    for name in lake.tables():
        for column in lake.read(lake.snapshot(name)).itercolumns():
            assert PERSON not in str(column.to_pylist()), name
    for folder in ("lake", "tracking", "certificates", ".lethe"):
        for path in (lake_a.config.parent / folder).rglob("*"):
            assert PERSON not in path.name
            assert not path.is_file() or PERSON.encode() not in path.read_bytes(), path


def test_models_whose_pool_the_subject_is_not_in_do_not_move(lake_a: Project) -> None:
    before = lake_a.models()
    lake_a.ask("writer", "4")
    result = lake_a.forget()
    moved = {m.model for m in result.redone.models if not m.found}
    assert moved == {"glyph"}
    after = lake_a.models()
    assert {k: v["digest"] for k, v in after.items() if k in ("topic", "outcome")} == {
        k: v["digest"] for k, v in before.items() if k in ("topic", "outcome")
    }
    assert after["glyph"]["digest"] != before["glyph"]["digest"]


def test_the_old_version_is_revoked_and_gone(lake_a: Project) -> None:
    old = {v["run_id"] for v in registered_versions(load_settings(lake_a.config), "glyph")}
    lake_a.ask("writer", "4")
    result = lake_a.forget()
    assert {r["run_id"] for r in result.redone.revoked} == old
    kept = registered_versions(load_settings(lake_a.config), "glyph")
    assert all(v["run_id"] not in old or v["state"] == "revoked" for v in kept)
    assert not any(run_id in str(path) for run_id in old for path in (lake_a.config.parent / "tracking").rglob("*"))


def test_a_subject_that_was_never_there_changes_nothing_and_is_certified(lake_a: Project) -> None:
    before = lake_a.digests(), lake_a.models()
    lake_a.ask("person", "nobody of this lake")
    result = lake_a.forget()
    assert result.erased.n_rows == 0
    assert result.redone.n_shards_retrained == 0
    assert (lake_a.digests(), lake_a.models()) == before
    assert result.certificates[0].residue_hits == 0


def test_ingesting_again_does_not_bring_the_person_back(lake_a: Project) -> None:
    lake_a.ask("person", PERSON)
    lake_a.forget()
    forgotten = lake_a.digests()
    (lake_a.config.parent / "raw" / "posts" / "0.jsonl").touch()
    curate(["posts"], str(lake_a.config))
    assert lake_a.digests() == forgotten
    text = (lake_a.config.parent / "raw" / "posts" / "1.jsonl").read_text(encoding="utf-8")
    assert PERSON in text
    (lake_a.config.parent / "raw" / "posts" / "2.jsonl").write_text(text.replace("tea", "coffee"), encoding="utf-8")
    curate(["posts"], str(lake_a.config))
    lake = lake_a.lake
    authors = lake.read(lake.snapshot("records/posts"), ["author"])["author"].to_pylist()
    assert len(authors) > 240
    assert PERSON not in authors


def test_nothing_open_is_nothing_done(lake_a: Project) -> None:
    assert forget(None, str(lake_a.config)) is None


def test_an_unknown_kind_is_refused_before_anything_is_written(lake_a: Project) -> None:
    with pytest.raises(LetheError, match="person"):
        lake_a.ask("passenger", PERSON)
    assert not lake_a.lake.exists("requests")


# --- outside the sample
# ------------------------------------------------------------------------------------------------------------


def test_a_subject_outside_the_sample_changes_exactly_its_own_shard(tmp_path: Path) -> None:
    project = Project(write_project(tmp_path / "sampled", sample_rows=60)).build()
    chosen = _outside_the_sample(project)
    project.ask("person", chosen)
    result = project.forget()
    (topic,) = [m for m in result.redone.models if m.model == "topic"]
    assert [s.found for s in topic.shards].count(False) == 1
    never = Project(
        write_project(tmp_path / "never", sample_rows=60, without=lambda r: chosen in (r.get("author"), r.get("patient")))
    )
    never.build()
    assert project.digests() == never.digests()
    assert project.weights() == never.weights()


def _outside_the_sample(project: Project) -> str:
    """An author whom neither the posts' nor the visits' sample holds, and whose posts are trained on."""
    import numpy as np  # noqa: PLC0415

    from infra.decisions import kept_ids  # noqa: PLC0415
    from infra.ids import in_sample, sample_level, subject_place, subject_token  # noqa: PLC0415

    lake = project.lake
    rows = lake.read(lake.snapshot("records/posts"), ["row_id", "author"]).to_pylist()
    kept = set(kept_ids(lake.parts(lake.snapshot("training_set/posts"))).tolist())
    for author in sorted({r["author"] for r in rows if r["row_id"] in kept}):
        place = np.array([subject_place(lake.keys, subject_token(lake.keys, "person", author))], np.uint64)
        if not in_sample(place, sample_level(len(rows), 60))[0]:
            return author
    raise AssertionError("every author is in the sample; make it smaller")


# --- killed at each step
# -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Not an Exception: nothing in the code under test may handle it."""


def _steps() -> list[tuple[Any, str]]:
    return [
        (infra.lake.Lake, "commit"),
        (infra.lake.Lake, "purge"),
        (infra.tracking, "register"),
        (infra.tracking, "set_alias"),
        (infra.tracking, "revoke"),
        (infra.tracking, "purge"),
    ]


@dataclass
class _Fuse:
    """Counts the steps that change the world and kills at one of them, before or after it took effect."""

    at: int
    after: bool
    n_steps: int = 0

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **options: Any) -> Any:
            self.n_steps += 1
            if self.n_steps == self.at and not self.after:
                raise Killed
            result = step(*args, **options)
            if self.n_steps == self.at:
                raise Killed
            return result

        return stepped


def _run_until_killed(project: Project, fuse: _Fuse, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for owner, name in _steps():
            patch.setattr(owner, name, fuse.wrap(getattr(owner, name)))
        try:
            project.ask("person", PERSON)
            project.forget()
        except Killed:
            return


def _finish(project: Project) -> None:
    """What a person does after a crash: the same command again."""
    project.ask("person", PERSON)
    forget(None, str(project.config))


def _check_killed_at(world: dict[str, Any], project: Project, at: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    restore(world["backup"], project.config.parent)
    fuse = _Fuse(at, after)
    _run_until_killed(project, fuse, monkeypatch)
    _finish(project)
    place = f"killed {'after' if after else 'before'} step {at}"
    assert project.digests() == world["b"].digests(), place
    assert project.models() == world["b"].models(), place
    assert project.weights() == world["b"].weights(), place
    certificates = sorted((project.config.parent / "certificates").glob("*.json"))
    assert certificates, place
    assert all(problems_of(c) == [] for c in certificates), place
    return fuse.n_steps


@pytest.mark.parametrize(("at", "after"), [(1, True), (3, False), (5, True)])
def test_killed_and_run_again_ends_in_the_same_state(
    world: dict[str, Any], lake_a: Project, at: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_killed_at(world, lake_a, at, after, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_step(world: dict[str, Any], lake_a: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = _Fuse(-1, False)
    _run_until_killed(lake_a, counting, monkeypatch)
    assert counting.n_steps > 10
    for at in range(1, counting.n_steps + 1):
        for after in (False, True):
            _check_killed_at(world, lake_a, at, after, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seconds", [2.0, 5.0, 9.0, 14.0, 20.0])
def test_a_process_killed_with_sigkill_is_finished_by_the_next(world: dict[str, Any], lake_a: Project, seconds: float) -> None:
    import signal  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    lake_a.ask("person", PERSON)
    command = [sys.executable, "-m", "flows.cli", "forget", "--config", str(lake_a.config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _finish(lake_a)
    assert lake_a.digests() == world["b"].digests()
    assert lake_a.weights() == world["b"].weights()
