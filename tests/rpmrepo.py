"""Repositories of tiny real packages, and a server for them that can be told how to fail."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from strata.rpm.repofile import RepoConfig

_SPEC = """\
%global __os_install_post %{{nil}}
Name: {name}
Version: {version}
Release: 1
Summary: {name}
License: MIT
BuildArch: noarch
{extra}
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share/{name} %{{buildroot}}/usr/share/doc/{name}
echo {version} > %{{buildroot}}/usr/share/{name}/file
echo doc > %{{buildroot}}/usr/share/doc/{name}/README
{install}
%files
/usr/share/{name}
%doc /usr/share/doc/{name}
{file}
"""


def make_repository(
    folder: Path,
    packages: Mapping[str, str],
    revision: int = 1_700_000_000,
    files: Mapping[str, str] | None = None,
) -> RepoConfig:
    """A repository of tiny real packages: "name version" to extra spec lines.

    files: a further file of a package, by its name; `%lang(de) /path` has an attribute, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for label, extra in packages.items():
        name, version = label.split()
        file = (files or {}).get(name, "")
        install = f"install -D /dev/null %{{buildroot}}{file.split()[-1]}" if file else ""
        spec = folder / f"{name}.spec"
        text = _SPEC.format(name=name, version=version, extra=extra, install=install, file=file)
        spec.write_text(text)
        defines = [f"_topdir {folder}/build", f"_rpmdir {folder}"]
        argv = ["rpmbuild", "-bb", "--quiet", str(spec)]
        for define in defines:
            argv += ["--define", define]
        subprocess.run(argv, check=True, capture_output=True)
    index(folder, revision)
    return RepoConfig(folder.name, folder.name, f"file://{folder}", 99, False, "test.repo")


def index(folder: Path, revision: int = 1_700_000_000) -> None:
    """Write a repository's index anew."""
    subprocess.run(
        ["createrepo_c", "-q", "--revision", str(revision), "--checksum", "sha256", folder],
        check=True,
    )


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Server:
    """A folder over HTTP on the loopback.

    asked: the paths of all requests. answers: what to do for a path instead of giving the file, one
    after another; with none left, the file is given.
    """

    url: str
    asked: list[str] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            path = folder / self.path.lstrip("/")
            data = path.read_bytes() if path.is_file() else b""
            if server.answers.get(self.path):
                server.answers[self.path].pop(0)(self, data)
            elif path.is_file():
                send(self, data)
            else:
                self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server = Server(f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, data: bytes, length: int | None = None) -> None:
    """Answer with data; length: what to announce instead of its size."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def break_off(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send half of the file and close."""
    send(handler, data[: len(data) // 2], len(data))


def fail(status: int) -> Answer:
    """Answer with a status."""
    return lambda handler, data: handler.send_error(status)
