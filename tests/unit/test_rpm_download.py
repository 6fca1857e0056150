"""Downloads from servers that break off, fail, say no, dawdle or send something else."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rpmrepo import Server, break_off, fail, send, serving
from strata.core import network
from strata.core.errors import DigestError, OfflineError, RepositoryError
from strata.rpm import download
from strata.rpm.cache import PackageCache
from strata.rpm.download import ATTEMPTS, FetchError, fetch
from strata.rpm.lock import Lock, LockedPackage
from strata.rpm.nevra import NEVRA
from strata.rpm.repofile import RepoConfig

pytestmark = pytest.mark.unit

GOOD = b"the package" * 1000
NAME = NEVRA.parse("a-1-1.noarch")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "served").mkdir()
    (tmp_path / "served/a.rpm").write_bytes(GOOD)
    with serving(tmp_path / "served") as running:
        yield running


def packages(server: Server, count: int = 1) -> tuple[Lock, list[RepoConfig]]:
    digest = hashlib.sha256(GOOD).hexdigest()
    names = [NAME, *(NEVRA.parse(f"a{number}-1-1.noarch") for number in range(1, count))]
    rows = tuple(LockedPackage(name, "r", "a.rpm", digest, len(GOOD)) for name in names)
    return Lock("x86_64", 0, {}, rows), [RepoConfig("r", "r", server.url, 99, False, "r.repo")]


@pytest.mark.parametrize("answer", [break_off, fail(503), fail(429)])
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, answer: object) -> None:
    server.answers["/a.rpm"] = [answer, answer]  # type: ignore[list-item]
    (path,) = PackageCache(tmp_path / "cache").fetch(*packages(server)).values()
    assert path.read_bytes() == GOOD
    assert server.asked == ["/a.rpm"] * 3


def test_attempts_are_bounded_and_the_last_failure_is_told(server: Server, tmp_path: Path) -> None:
    server.answers["/a.rpm"] = [break_off] * 99
    with pytest.raises(RepositoryError) as caught:
        PackageCache(tmp_path / "cache").fetch(*packages(server))
    assert caught.value.message == (
        "a-1-1.noarch cannot be fetched from repository r: "
        f"the server broke off after 5500 of 11000 bytes ({ATTEMPTS} attempts)"
    )
    assert server.asked == ["/a.rpm"] * ATTEMPTS
    assert [path for path in (tmp_path / "cache").rglob("*.rpm") if path.is_file()] == []
    assert not list((tmp_path / "cache").rglob(".fetch.*"))


@pytest.mark.parametrize("status", [404, 403])
def test_a_no_is_taken_for_an_answer(server: Server, tmp_path: Path, status: int) -> None:
    server.answers["/a.rpm"] = [fail(status)]
    with pytest.raises(RepositoryError, match=f"the server says {status}"):
        PackageCache(tmp_path / "cache").fetch(*packages(server))
    assert server.asked == ["/a.rpm"]


@pytest.mark.parametrize("wrong", [b"x" * len(GOOD), GOOD + b"x", GOOD[:-1]])
def test_wrong_bytes_are_refused_and_not_kept(server: Server, tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "served/a.rpm").write_bytes(wrong)
    with pytest.raises(DigestError, match="is not the package that was locked"):
        PackageCache(tmp_path / "cache").fetch(*packages(server))
    assert server.asked == ["/a.rpm"]
    assert [path for path in (tmp_path / "cache").rglob("*.rpm") if path.is_file()] == []
    assert not list((tmp_path / "cache").rglob(".fetch.*"))


def test_no_more_is_written_than_was_locked(server: Server) -> None:
    out = io.BytesIO()
    download.download(f"{server.url}/a.rpm", out, max_bytes=100)
    assert out.getvalue() == GOOD[:101]
    with pytest.raises(FetchError, match="larger than 100 bytes"):
        fetch(f"{server.url}/a.rpm", 100)


def test_a_server_that_says_nothing_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    server.answers["/a.rpm"] = [lambda handler, data: time.sleep(0.3)] * 99
    with pytest.raises(FetchError, match=r"nothing arrived for 0.1 s \(4 attempts\)"):
        fetch(f"{server.url}/a.rpm", 1 << 20)


def test_a_server_that_dawdles_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 1)

    def trickle(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, b"", len(data))
        try:
            for byte in data[:100]:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass  # they hung up, as they should

    server.answers["/a.rpm"] = [trickle]
    with pytest.raises(FetchError, match="less than 1000 bytes a second arrive"):
        fetch(f"{server.url}/a.rpm", 1 << 20)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        pass
    with pytest.raises(FetchError, match="Connection refused"):
        fetch(f"{server.url}/a.rpm", 1)


def test_after_a_failure_the_other_packages_are_left(server: Server, tmp_path: Path) -> None:
    server.answers["/a.rpm"] = [fail(404)] * 99
    with pytest.raises(RepositoryError):
        PackageCache(tmp_path / "cache").fetch(*packages(server, 60))
    assert len(server.asked) < 30


def test_offline_no_request_is_made_and_all_that_is_missing_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PackageCache(tmp_path / "cache")
    cache.fetch(*packages(server))
    server.asked.clear()
    monkeypatch.setenv(network.VARIABLE, "1")
    assert list(cache.fetch(*packages(server))) == [NAME]
    with pytest.raises(OfflineError) as caught:
        cache.fetch(*packages(server, 8))
    assert caught.value.message == (
        "7 packages are not in this store, and this is an offline run: a1-1-1.noarch, "
        "a2-1-1.noarch, a3-1-1.noarch, a4-1-1.noarch, a5-1-1.noarch and 2 more"
    )
    assert caught.value.hint == "run once without --offline"
    with pytest.raises(OfflineError, match="would have to be fetched, but this is an offline run"):
        fetch(f"{server.url}/a.rpm", 1)
    assert server.asked == []
