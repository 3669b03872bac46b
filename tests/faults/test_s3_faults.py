"""An S3 that errs: what passes by itself is retried, what does not is a clear error, and after one more run nothing is lost,
nothing is there twice and nothing lies about."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count

import boto3
import pytest
from fault_child import Kill
from fault_project import Held, Project, Recovery, people, recovered
from fault_proxy import Fault, Proxy, proxy

pytestmark = pytest.mark.s3
_BUCKET = "faults"
_TABLES = """[lake]
root = "s3://faults/{lake}"
[tables.people]
source = "s3://faults/raw/people/*"
subject = {{kind = "person", column = "who"}}
"""
_FILES = {"people/a.csv": people(0, 30).encode(), "people/b.csv.gz": gzip.compress(people(30, 40).encode(), mtime=0)}
_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "AWS_TIMEOUT": "2 seconds",  # of delta-rs: half a minute, if it is not told
    "AWS_MAX_ATTEMPTS": "2",  # of botocore, each of which s3fs tries five times
    "FSSPEC_S3": '{"config_kwargs": {"read_timeout": 2, "connect_timeout": 2}}',
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                break
            time.sleep(0.1)
        yield url
        process.terminate()


@pytest.fixture(scope="module")
def faulty(server: str) -> Iterator[Proxy]:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=server, **keys)
    client.create_bucket(Bucket=_BUCKET)
    for name, content in _FILES.items():
        client.put_object(Bucket=_BUCKET, Key=f"raw/{name}", Body=content)
    with proxy(server) as made:
        yield made


@pytest.fixture(scope="module")
def make(faulty: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Projects with the same raw files and a lake each."""
    numbers = count()

    def made() -> Project:
        faulty.inject()
        lake = f"lake-{next(numbers)}"
        return Project(tmp_path_factory.mktemp(lake), _TABLES.format(lake=lake), env={**_KEYS, "AWS_ENDPOINT_URL": faulty.url})

    return made


@pytest.fixture(scope="module")
def expected(make: Callable[[], Project]) -> Held:
    project = make()
    ended = project.run()
    assert not ended.error, ended.message
    return project.held()


def _settles(project: Project, faulty: Proxy, expected: Held) -> None:
    faulty.inject()
    found: Recovery = project.value(recovered)
    assert (found.held, found.tidied) == (expected, expected)
    assert (found.unreferenced, found.unsettled) == ([], [])


# One request fails and the next one does not: the libraries try again, and the run knows nothing of it.
_RETRIED = {
    "an error when a raw file is read": Fault("500", "GET", "/raw/people/a"),
    "busy when the raw files are listed": Fault("503", "GET", "list-type"),
    "no answer when a raw file is read": Fault("stall", "GET", "/raw/people/b", seconds=4.0),
    "a slow read": Fault("slow", "GET", "/raw/people/a", seconds=1.0),
    "a raw file cut in the middle": Fault("cut", "GET", "/raw/people/a"),
    "busy when a data file is written": Fault("503", "PUT", "/quarantine/part-"),
    "a reset in the middle of an upload": Fault("reset", "PUT", "/people/part-"),
    "an upload whose answer is lost": Fault("lost", "PUT", "/sources/part-"),
    "an error at a commit": Fault("500", "PUT", "/_delta_log/"),
    "busy when a log is read": Fault("503", "GET", "_delta_log"),
    "a log cut in the middle": Fault("cut", "GET", "_delta_log/0"),
}
# Nobody can tell whether a commit was made whose answer did not come.
_UNKNOWN = {
    "no answer at a commit": Fault("stall", "PUT", "/_delta_log/", seconds=4.0),
    "a reset in the middle of a commit": Fault("reset", "PUT", "/_delta_log/"),
    "the commit of rejects is made, its answer lost": Fault("lost", "PUT", "/quarantine/_delta_log/"),
    "the commit of records is made, its answer lost": Fault("lost", "PUT", "/records/people/_delta_log/"),
    "the commit of the ledger is made, its answer lost": Fault("lost", "PUT", "/sources/_delta_log/"),
}
# Nothing gets through any more.
_LASTING = {
    "raw files cannot be read": Fault("503", "GET", "/raw/people/a", n=1_000_000),
    "packed raw files break off": Fault("cut", "GET", "/raw/people/b", n=1_000_000),
    "data files cannot be written": Fault("500", "PUT", "/part-", n=1_000_000),
    "uploads are always reset": Fault("reset", "PUT", "/part-", n=1_000_000),
    "nothing can be committed": Fault("503", "PUT", "/_delta_log/", n=1_000_000),
}


def _met(project: Project, faulty: Proxy, *faults: Fault) -> str:
    """The message of the error that a run under faults ends with."""
    faulty.inject(*faults)
    ended = project.run()
    assert not ended.signal
    assert faulty.hits >= 1
    return ended.message


def test_what_passes_by_itself_fails_no_run(make: Callable[[], Project], faulty: Proxy, expected: Held) -> None:
    project = make()
    assert _met(project, faulty, *_RETRIED.values()) == ""
    assert faulty.hits >= len(_RETRIED) - 2
    _settles(project, faulty, expected)


def test_a_commit_whose_answer_is_lost_is_made_once(make: Callable[[], Project], faulty: Proxy, expected: Held) -> None:
    project = make()
    assert _met(project, faulty, *(fault for fault in _UNKNOWN.values() if fault.what == "lost")) == ""
    assert faulty.hits == 3
    _settles(project, faulty, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", _RETRIED)
def test_a_passing_fault_fails_no_run(make: Callable[[], Project], faulty: Proxy, expected: Held, name: str) -> None:
    project = make()
    assert _met(project, faulty, _RETRIED[name]) == ""
    _settles(project, faulty, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", _UNKNOWN)
def test_a_commit_that_may_have_been_made_is_made_once(
    make: Callable[[], Project], faulty: Proxy, expected: Held, name: str
) -> None:
    project = make()
    _clear(_met(project, faulty, _UNKNOWN[name]))
    _settles(project, faulty, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", _LASTING)
def test_a_lasting_fault_is_told(make: Callable[[], Project], faulty: Proxy, expected: Held, name: str) -> None:
    project = make()
    message = _met(project, faulty, _LASTING[name])
    assert message
    _clear(message)
    _settles(project, faulty, expected)


_CAUSES = re.compile(
    r"reset|timed? ?out|connect|endpoint|unavailable|payload|remote i/o|busy|slow down|server error|\b50[03]\b", re.IGNORECASE
)


def _clear(message: str) -> None:
    """An error, if there is one, says what the store did."""
    assert not message or _CAUSES.search(message), message


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_random_kill_points_on_s3(make: Callable[[], Project], faulty: Proxy, expected: Held, number: int) -> None:
    chance = random.Random(number)
    project = make()
    project.run(Kill(after_s=chance.uniform(0.1, 3.0)))
    _settles(project, faulty, expected)
