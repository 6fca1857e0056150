"""Which treefile a base layer is made from and what decides how it is read: a stream's own words,
or a build-args file's (requirements R1.9 and R1.18).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.labels import Identity
from strata.core.errors import DefinitionError
from strata.core.record import Input
from strata.inspect.osrelease import parse
from strata.treefile.buildargs import BuildArgs, load_build_args
from strata.treefile.conditions import Variable
from strata.treefile.project import Project, Stream
from strata.treefile.target import Target
from strata.treefile.treefile import Flattened
from strata.treefile.userlists import UserLists
from strata.treefile.yaml import Place


@dataclass(frozen=True)
class Variant:
    """What decides how a stream's treefile is read. os_release_token: empty for the treefile's.

    folder: the build-args file's, None without one. version: X.Y, empty where the treefile's own
    scheme counts. users: lists of users and groups, beside the treefile's own. files:
    those read beside the treefile.
    """

    treefile: str
    variables: Mapping[str, Variable]
    identity: Identity
    os_release_token: str = ""
    image_config: str = ""
    folder: str | None = None
    version: str = ""
    users: UserLists | None = None
    files: tuple[Path, ...] = ()
    inputs: tuple[Input, ...] = ()


def variant_of(project: Project, target: Target) -> Variant:
    """What a base layer's treefile is, and how it is read. Raises DefinitionError."""
    stream = project.stream(target.name)
    source = stream.bootc if target.kind == "bootc" else stream.coreos
    if source is None or not (source.treefile or source.build_args):
        raise DefinitionError(
            f"{target} has no treefile in strata.toml",
            hint="only layers with a treefile are built",
        )
    if source.build_args:
        return _read_build_args(project.path, source.build_args, stream)
    told = stream.version_labels and target.kind == "coreos"
    identity = Identity("", stream.name, version_labels=told)
    variables = stream_variables(stream)
    return Variant(source.treefile, variables, identity, version=stream.version)


def _read_build_args(folder: Path, name: str, stream: Stream) -> Variant:
    """A build-args file, which names the treefile. Raises DefinitionError."""
    arguments = load_build_args(folder / name, name)
    version = arguments.values["VERSION"]
    if stream.version and version != stream.version:
        raise DefinitionError(
            f"{name} is of version {version}, stream {stream.name} of {stream.version}",
            context={"file": name, "key": "VERSION"},
        )
    return Variant(
        str(Path(name).parent / arguments.manifest),
        arguments.variables,
        Identity(
            arguments.values["NAME"],
            arguments.values["STREAM"],
            arguments.values["DESCRIPTION"],
            stream.version_labels or bool(arguments.values.get("INJECT_OPENSHIFT_VERSION_LABELS")),
        ),
        arguments.values["MUTATE_OS_RELEASE"],
        str(Path(name).parent / arguments.values["IMAGE_CONFIG"]),
        str(Path(name).parent),
        version,
        _user_lists(arguments, name),
        (folder / name,),
        (Input("treefile", name, f"sha256:{arguments.sha256}"),),
    )


def _user_lists(arguments: BuildArgs, name: str) -> UserLists | None:
    given, line = arguments.line("PASSWD_GROUP_DIR")
    if not given:
        return None
    return UserLists(os.path.normpath(Path(name).parent / given), Place(name, line, 1))


def identified(identity: Identity, treefile: Flattened) -> Identity:
    """The identity with what the treefile says where a build-args file does not: `name` in its
    `metadata`, else in `rojig`, whose summary describes the system."""
    rojig = treefile.mapping("rojig")
    name = identity.name or str(treefile.metadata.get("name", rojig.get("name", "")))
    description = identity.description or str(rojig.get("summary", ""))
    return replace(identity, name=name, description=description)


def node_variables(os_release: str, stream: str) -> dict[str, Variable]:
    """What a node treefile's conditions may ask of the base's os-release (requirement R1.9)."""
    values = parse(os_release)
    identity, version = values.get("ID", ""), values.get("VERSION_ID", "")
    return {
        "deriving": True,
        "id": identity,
        "stream": stream,
        "osversion": f"{identity}-{version}",
    }


def stream_variables(stream: Stream) -> dict[str, Variable]:
    """What `conditional-include` may ask about a stream (requirement R1.9)."""
    return {
        "deriving": False,
        "id": stream.name.rpartition("-")[0] or stream.name,
        "stream": stream.name,
        "osversion": stream.name,
    }
