"""The command in the network of a test's registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from registry import ADDRESS, Registry


class Publisher:
    """The command in a registry's network."""

    def __init__(self, registry: Registry, definitions: Path, store: Path, home: Path) -> None:
        self.registry, self.definitions, self.store, self.home = registry, definitions, store, home
        config = home / ".config/containers/registries.conf"
        config.parent.mkdir(parents=True)
        config.write_text(f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n')

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = str(Path(sys.executable).with_name("strata"))
        where = ("-C", str(self.definitions), "--store", str(self.store))
        return subprocess.run(
            self.registry.inside(command, *where, *arguments),
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(self.home)},
            check=False,
        )

    def tags(self) -> dict[str, str]:
        """What the registry has: tag to digest."""
        folder = self.link("x").parents[2]
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return {name: self.link(name).read_text() for name in names}

    def link(self, tag: str) -> Path:
        """The registry's own file that says what a tag is."""
        repositories = self.registry.folder / "data/docker/registry/v2/repositories"
        return repositories / "sample/_manifests/tags" / tag / "current/link"
