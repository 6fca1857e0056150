"""content_manifest.json: which content sets an image's packages come from (requirement R2.14).

Scanners look vulnerabilities up by content set, not by repository. A file of the definitions maps
repositories to them:

    repo_mapping:
      rhel-9.8-baseos: { name: "rhel-9-for-$ARCH-baseos-rpms" }

Source: `inject_content_manifest` in fedora-coreos-config's build-rootfs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.core import rooted
from strata.core.errors import DefinitionError, TreeError
from strata.core.files import pretty_json
from strata.treefile.sources import Sources
from strata.treefile.treefile import plain
from strata.treefile.yaml import definition_error, parse_yaml

WHERE = "usr/share/buildinfo/content_manifest.json"
_SPEC = (
    "https://raw.githubusercontent.com/containerbuildsystem/atomic-reactor/master/"
    "atomic_reactor/schemas/content_manifest.json"
)


@dataclass(frozen=True)
class ContentSets:
    """A file of content sets. names: by repository, with $ARCH in them. sha256: of its bytes."""

    names: Mapping[str, str]
    sha256: str


def read_content_sets(folder: Path, name: str) -> ContentSets:
    """Read a file of the definitions in `folder`. Raises DefinitionError with its place."""
    sources = Sources(folder)
    try:
        document = parse_yaml(sources.text(name), name)
    except FileNotFoundError as error:
        raise DefinitionError(f"{name} cannot be read: {error.strerror}") from error
    mapping = document.data.get("repo_mapping") if isinstance(document.data, dict) else None
    if mapping is None or not isinstance(mapping.data, dict):
        raise definition_error(
            document.place,
            "there is no repo_mapping",
            'write repo_mapping: { REPOSITORY: { name: "CONTENT-SET" } }',
        )
    names = {}
    for repo, value in mapping.data.items():
        found = plain(value)
        text = found.get("name") if isinstance(found, dict) else None
        if not isinstance(text, str):
            raise definition_error(
                value.place, f"repo_mapping's {repo} has no name that is text", key=repo
            )
        names[repo] = text
    return ContentSets(names, sources.inputs[name])


def content_manifest(sets: Sequence[str]) -> dict[str, object]:
    """The document, for an image of one layer."""
    return {
        "metadata": {"icm_version": 1, "icm_spec": _SPEC, "image_layer_index": 1},
        "content_sets": list(sets),
        "image_contents": [],
    }


def sets_of(
    names: Mapping[str, str], repos: Sequence[str], arch: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The content sets of repositories in their order, and the repositories that have none."""
    found = tuple(names[repo].replace("$ARCH", arch) for repo in repos if names.get(repo))
    return found, tuple(repo for repo in repos if not names.get(repo))


def write_content_manifest(
    root: Path, names: Mapping[str, str], repos: Sequence[str], arch: str
) -> tuple[str, ...]:
    """Write it into a tree, with what the layer below wrote there; returns repositories without a
    content set. Raises TreeError."""
    sets, missing = sets_of(names, repos, arch)
    try:
        below = json.loads(rooted.read_text(root, WHERE))["content_sets"]
        if not isinstance(below, list) or not all(isinstance(name, str) for name in below):
            raise ValueError("content_sets is no list of texts")
    except FileNotFoundError:
        below = []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TreeError(f"/{WHERE} of the layer below is no content manifest: {error!r}") from error
    rooted.write_text(
        root, WHERE, pretty_json(content_manifest([*dict.fromkeys([*below, *sets])])).decode()
    )
    return missing
