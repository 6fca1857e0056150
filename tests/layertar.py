"""Layer tars by the standard library's tarfile, so that no code of ours is on both sides."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


class Tar:
    """A layer in the making; every addition returns it."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(
            fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        )

    def add(
        self,
        name: str,
        data: bytes = b"",
        *,
        kind: bytes = tarfile.REGTYPE,
        target: str = "",
        mode: int = 0o644,
        owner: tuple[int, int] = (0, 0),
        mtime: int = 0,
        xattrs: Mapping[str, str] | None = None,
        pax: Mapping[str, str] | None = None,
    ) -> Tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, target, mode
        info.uid, info.gid = owner
        info.mtime, info.size = mtime, len(data)
        info.pax_headers = {f"SCHILY.xattr.{key}": of for key, of in (xattrs or {}).items()}
        info.pax_headers.update(pax or {})
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def folder(self, *names: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Tar:
        for name in names:
            self.add(name, kind=tarfile.DIRTYPE, mode=mode, owner=owner)
        return self

    def symlink(self, name: str, target: str) -> Tar:
        return self.add(name, kind=tarfile.SYMTYPE, target=target, mode=0o777)

    def link(self, name: str, target: str, mtime: int = 0) -> Tar:
        return self.add(name, kind=tarfile.LNKTYPE, target=target, mtime=mtime)

    def bytes(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()
