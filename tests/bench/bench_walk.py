"""The walk: what a second curation costs when nothing is new, and what forgetting one person costs beside starting over.

    python -m tests.bench.bench_walk {curate,forget} [--data ../shared/data]

Each is timed in one process against one temporary Prefect server, after a walk over a handful of rows that pays for imports,
compiled kernels and the server's start. The same second curation as a whole command is a row of its own: it pays for all that.
Seconds are wall seconds; those of the stages are printed beside the rows.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tests.bench.harness import DATA, ROOT, Options, Row, environment, said, stopwatch, unpacked, verdict, wall_s

if TYPE_CHECKING:  # Prefect is imported after its environment is set
    from flows.forget import Forgotten
    from infra.ids import I64
    from infra.lake import Lake
    from infra.settings import Settings

MOST_SHARE = 0.05
N_AGAIN = 3
N_WARM = 400
_PARTS = ("labels", "extract", "train_shard", "evaluate", "publish")
SECRET = "5e" * 32  # the same samples and shards in every run

TEXTS = {"news": "newsgroups20", "medquad": "medquad", "reviews": "target_product_reviews"}
TEXT_CONFIG = """\
[tables.news]
source  = "raw/newsgroups20.jsonl.gz"
subject = { kind = "author", column = "subject_id" }
text    = "text"
label   = "label"
[tables.medquad]
source = "raw/medquad.jsonl.gz"
text   = "text"
label  = "label"
[tables.reviews]
source = "raw/target_product_reviews.jsonl.gz"
text   = "text"
[datasets.pool]
pool   = ["news", "medquad"]
target = "reviews"
select = { keep_fraction = 0.5 }
prune  = { method = "density", keep_fraction = 0.7 }
"""

VISITS = "subjects/diabetes130/diabetic_data.csv"
VISITS_CONFIG = """\
[tables.visits]
source  = "raw/visits.csv"
subject = { kind = "patient", column = "patient_nbr" }
label   = "readmitted"
[datasets.visits]
pool  = ["visits"]
prune = { method = "prototypes", keep_fraction = 0.7 }
[models.readmission]
dataset = "visits"
kind    = "tabular"
label   = "readmitted"
shards  = 8
slices  = 4
"""


def project(home: Path, config: str, raw: Mapping[str, bytes]) -> str:
    """A project folder with its raw files; returns the path of its lethe.toml."""
    (home / "raw").mkdir(parents=True)
    for name, content in raw.items():
        (home / "raw" / name).write_bytes(content)
    (home / ".lethe").mkdir(mode=0o700)
    (home / ".lethe" / "secret").write_text(SECRET, encoding="ascii")
    (home / "lethe.toml").write_text(config, encoding="utf-8")
    return str(home / "lethe.toml")


def served(stack: ExitStack, home: Path) -> None:
    """One temporary Prefect server for this process, up when this returns. Its logs stay out of the figures."""
    from flows.servers import embedded  # noqa: PLC0415

    (home / "prefect").mkdir()
    stack.enter_context(embedded(home / "prefect"))
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        client.api_version()


# --- curate again ---------------------------------------------------------------------------------------------------------------


def curate_rows(options: Options) -> list[Row]:
    """The least of three more curations, and one as a whole command, against the first."""
    raw = {f"{name}.jsonl.gz": options.data / "text" / f"{name}.jsonl.gz" for name in TEXTS.values()}
    few = {name: gzip.compress(b"".join(_first_lines(path))) for name, path in raw.items()}
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        served(stack, Path(place))
        curate_clocked(project(Path(place) / "warm", TEXT_CONFIG, few), "warm-up")
        config = project(Path(place) / "whole", TEXT_CONFIG, {name: path.read_bytes() for name, path in raw.items()})
        first = curate_clocked(config, "first")
        again = min(curate_clocked(config, "again") for _ in range(N_AGAIN))
        command = command_s("curate", "pool", "--config", config)
    what, target = "curate again, nothing new, against the first", f"< {MOST_SHARE:.0%}"
    return [
        Row(f"{what}: s", f"{again:.2f}", f"{first:.2f}", f"{again / first:.1%}", target, verdict(again < MOST_SHARE * first)),
        Row(f"{what}: s, as a whole command", f"{command:.2f}", f"{first:.2f}", f"{command / first:.1%}"),
    ]


def _first_lines(path: Path) -> list[bytes]:
    with gzip.open(path) as lines:
        return list(itertools.islice(lines, N_WARM))


def curate_clocked(config: str, name: str) -> float:
    """Seconds of the flow; prints those of its stages."""
    from flows import curate as flow  # noqa: PLC0415

    stages = [(flow, stage) for stage in ("ingest", "dedup", "select", "prune")]
    with stopwatch(*stages) as steps:
        seconds = wall_s(lambda: flow.curate(None, config))
    print(f"curate, {name}: {said(steps, seconds)}")
    return seconds


def command_s(*arguments: str) -> float:
    """Seconds of a whole `lethe` command in a process of its own."""
    run = partial(subprocess.run, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)
    return wall_s(lambda: run([sys.executable, "-m", "flows.cli", *arguments]))


# --- forget ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Two persons of the same weight (kept, in the control, third of four slices), one outside the sample and one inside."""

    outside: str
    inside: str
    n_subjects: int
    n_sampled: int
    n_rows: int


def forget_rows(options: Options) -> list[Row]:
    """Forgetting a person outside the sample, then one inside it, against curation and training of the whole lake."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        lines = (
            (unpacked(options.data / "subjects.tar.gz", Path(place), [VISITS]) / VISITS).read_bytes().splitlines(keepends=True)
        )
        served(stack, Path(place))
        warm_up(project(Path(place) / "warm", VISITS_CONFIG, {"visits.csv": b"".join(lines[: 1 + N_WARM])}))
        config = project(Path(place) / "whole", VISITS_CONFIG, {"visits.csv": b"".join(lines)})
        whole = build_clocked(config, "the whole lake")
        people = chosen(config)
        print(f"{people.n_subjects:,} subjects, {people.n_rows:,} rows, {people.n_sampled:,} of them in the sample")
        rows = list[Row]()
        for where, person in (("outside", people.outside), ("inside", people.inside)):
            seconds, n_retrained, n_shards = forget_clocked(config, person, f"a person {where} the sample")
            what = f"forget 1 of {people.n_subjects:,} persons, {where} the sample, {n_retrained} of {n_shards} shards again"
            rows.append(Row(f"{what}; curate + train: s", f"{seconds:.2f}", f"{whole:.2f}", f"{seconds / whole:.1%}"))
    return rows


def warm_up(config: str) -> None:
    """Every import and every kernel once, on a few rows."""
    build_clocked(config, "warm-up")
    _, lake = opened(config)
    person = lake.read(lake.snapshot("records/visits"), ["patient_nbr"])["patient_nbr"][0].as_py()
    forget_clocked(config, str(person), "warm-up")


def opened(config: str) -> tuple[Settings, Lake]:
    from infra.lake import Lake  # noqa: PLC0415
    from infra.settings import load_settings  # noqa: PLC0415

    settings = load_settings(config)
    return settings, Lake.open(settings)


def build_clocked(config: str, name: str) -> float:
    """Seconds of curation and training."""
    from flows import curate as curating  # noqa: PLC0415
    from flows import train as training  # noqa: PLC0415

    stages = [*((curating, stage) for stage in ("ingest", "dedup", "prune")), (training, "train_model")]
    with stopwatch(*stages, *_inside_training()) as steps:
        seconds = wall_s(lambda: (curating.curate(None, config), training.train(None, config)))
    print(f"curate + train, {name}: {_told(steps, seconds)}")
    return seconds


def _inside_training() -> list[tuple[ModuleType, str]]:
    from tasks.train import frames, task  # noqa: PLC0415

    return [(task if name == "publish" else frames, name) for name in _PARTS]


def _told(steps: Mapping[str, float], seconds: float) -> str:
    """The parts of training are shown apart: they lie inside its step."""
    outer = {name: taken for name, taken in steps.items() if name not in _PARTS}
    inner = ", ".join(f"{name} {steps[name]:.2f}" for name in _PARTS)
    return f"{said(outer, seconds)}; of training: {inner}"


def forget_clocked(config: str, person: str, name: str) -> tuple[float, int, int]:
    """(seconds of the flow without the request, shards retrained, shards); prints the steps."""
    from flows import forget as flow  # noqa: PLC0415

    flow.request([("patient", person)], config)
    results: list[Forgotten | None] = []
    doors = ("erase", "dedup", "curate_again", "train_again", "retire_superseded", "purge_derived", "certify")
    with stopwatch(*((flow, door) for door in doors), *_inside_training()) as steps:
        seconds = wall_s(lambda: results.append(flow.forget(None, config)))
    (done,) = (result for result in results if result is not None)
    assert done.erased.n_rows > 0 and done.certificates[0].residue_hits == 0
    shards = [shard for model in done.redone.models for shard in (*model.shards, *model.control)]
    retrained = [shard for shard in shards if not shard.found]
    n_steps = sum(shard.n_steps for shard in retrained)
    print(f"forget, {name}: {_told(steps, seconds)}; {len(retrained)} of {len(shards)} shards retrained, {n_steps:,} steps")
    return seconds, len(retrained), len(shards)


def chosen(config: str) -> People:
    """The people to forget: by the same keyed draws that the stages make."""
    from infra.ids import in_sample, sample_level  # noqa: PLC0415
    from infra.subjects import row_places  # noqa: PLC0415

    settings, lake = opened(config)
    snapshot = lake.snapshot("records/visits")
    records = lake.read(snapshot, ["row_id", "patient_nbr"])
    level = sample_level(snapshot.n_rows, settings.lake.sample_rows)
    sampled = in_sample(row_places(records, settings.table("visits").subject, lake.keys), level)
    ids = np.asarray(records["row_id"])
    trained = np.isin(ids, trained_on(lake))
    patients = np.asarray(records["patient_nbr"].cast("string"))
    outside, inside = (sorted(patients[trained & here])[0] for here in (~sampled, sampled))
    return People(str(outside), str(inside), len(set(patients)), int(sampled.sum()), snapshot.n_rows)


def trained_on(lake: Lake) -> I64:
    """Ids of the rows that both ensembles train on and that are first met in the third slice, where the work lost is average."""
    columns = ["row_id", "slice", "keep", "control"]
    rows = lake.read(lake.snapshot("training_set/visits"), columns)
    ids, slices, keep, control = (np.asarray(rows[name]) for name in columns)
    return ids[(slices == 2) & keep & control]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curate", "forget"))
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    told = {"curate": curate_rows, "forget": forget_rows}[options.what](Options(options.data.absolute()))
    for row in told:
        print(f"{row.what}: {row.ours} against {row.theirs}, {row.ratio}, {row.verdict}")


if __name__ == "__main__":
    main()
