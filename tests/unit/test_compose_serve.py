"""Serving an image's files over HTTP, on loopback: what is there, and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.compose.serve import RepositoryServer, open_files
from strata.container import derive
from strata.container.layers import write_image
from strata.core.errors import DigestError, ImageError, UsageError
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Manifest
from strata.ostree.objects import DirMeta
from strata.ostree.tree import Tree

pytestmark = pytest.mark.unit

BIG = bytes(range(256)) * 4096
FILES = {
    "repo/a-1.2~rc+b^1-1.x86_64.rpm": BIG,
    "repo/repodata/repomd.xml": b"<repomd/>",
    "repo/empty": b"",
    "repo/<b>&": b"odd",
    "secret": b"no",
}


def make_image(folder: Path, compression: str = "none") -> tuple[Layout, Manifest]:
    layout = Layout.create(folder)
    layer = derive.file_layer(layout, "files", FILES, Tree(DirMeta()), compression)
    config = ImageConfig("amd64", "linux", "", {}, (layer.diff_id,))
    manifest = write_image(layout, config, [layer.descriptor], {})
    return layout, Manifest.parse(layout.read(manifest))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RepositoryServer]:
    with open_files(*make_image(tmp_path)) as files:
        below = {
            path.removeprefix("repo/"): file
            for path, file in files.items()
            if path.startswith("repo/")
        }
        with RepositoryServer(below, "127.0.0.1", 0) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield server
            server.shutdown()
            thread.join()


def ask(server: RepositoryServer, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers.get("Content-Length", "")
    connection.close()
    return found


def test_files_are_sent_whole_with_their_length(server: RepositoryServer) -> None:
    for path in ("/a-1.2~rc+b^1-1.x86_64.rpm", "/a-1.2~rc%2Bb%5E1-1.x86_64.rpm?x=1"):
        assert ask(server, path) == (200, BIG, str(len(BIG)))
    assert ask(server, "/repodata/repomd.xml") == (200, b"<repomd/>", "9")
    assert ask(server, "/empty") == (200, b"", "0")
    assert ask(server, "/repodata/repomd.xml", "HEAD") == (200, b"", "9")


def test_folders_are_listed_by_their_names(server: RepositoryServer) -> None:
    status, page, length = ask(server, "/")
    assert (status, int(length)) == (200, len(page))
    assert b'<a href="/repodata/repomd.xml">repodata/repomd.xml</a>' in page
    assert b'<a href="/%3Cb%3E%26">&lt;b&gt;&amp;</a>' in page
    assert b"secret" not in page
    assert ask(server, "/repodata")[0] == ask(server, "/repodata/")[0] == 200
    status, _, length = ask(server, "/", "HEAD")
    assert (status, int(length)) == (200, len(page))


@pytest.mark.parametrize(
    "path",
    [
        *("/secret", "/../secret", "/%2e%2e/secret", "//secret", "/repodata/../../secret"),
        *("/etc/passwd", "//etc/passwd", "/repo/empty", "/empty/", "/%00", "/%ff", "/repod"),
    ],
)
def test_r4_8_nothing_else_is_reached(server: RepositoryServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_only_reading_is_answered(server: RepositoryServer) -> None:
    assert [ask(server, "/empty", method)[0] for method in ("PUT", "POST", "DELETE")] == [501] * 3


def test_clients_do_not_wait_for_each_other(server: RepositoryServer) -> None:
    idle = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    idle.connect()
    assert ask(server, "/empty")[0] == 200
    idle.close()


def test_a_port_that_is_taken_is_told(server: RepositoryServer) -> None:
    with pytest.raises(UsageError) as caught:
        RepositoryServer({}, "127.0.0.1", server.server_port)
    assert caught.value.message == (
        f"cannot listen on 127.0.0.1 port {server.server_port}: Address already in use"
    )
    for address, port in (("127.0.0.1", 70000), ("not an address", 0), ("127.0.0.1", -1)):
        with pytest.raises(UsageError, match="cannot listen on"):
            RepositoryServer({}, address, port)


def test_a_layer_that_is_damaged_or_compressed_is_not_served(tmp_path: Path) -> None:
    layout, manifest = make_image(tmp_path / "plain")
    blob = layout.blob_path(manifest.layers[0].digest)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DigestError), open_files(layout, manifest):
        pass
    with (
        pytest.raises(ImageError, match="is compressed"),
        open_files(*make_image(tmp_path / "gzip", "gzip")),
    ):
        pass
