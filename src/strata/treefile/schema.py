"""The schema of strata.toml, declared once; decoding and its errors derive from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One key. type: "text", "integer", "flag", "date", "texts" (a list), "table", "mapping" (text
    to text). table: the keys of a nested table."""

    name: str
    type: str
    doc: str
    required: bool = False
    table: tuple[Key, ...] = ()


_LAYER = (
    Key("treefile", "text", "the treefile it is composed from"),
    Key("from", "text", "a foreign image, by digest"),
    Key("build-args", "text", "a build-args file that names the treefile"),
)

STREAM = (
    Key("version", "text", "X.Y of X.Y.YYYYMMDD-N; absent: as the treefile counts"),
    Key("arches", "texts", "architectures, as rpm names them", required=True),
    Key("bootc", "table", "the bootc layer; absent: the stream has two layers", table=_LAYER),
    Key("coreos", "table", "the CoreOS layer", required=True, table=_LAYER),
    Key("lock", "text", "the file that keeps its lock"),
    Key("tag", "text", "the moving tag it is published under"),
    Key("content-sets", "text", "the file that maps repositories to content sets"),
    Key("composefs", "text", "what prepare-root.conf must say of composefs: no, maybe, yes…"),
    Key(
        "version-labels", "flag", "labels that tell a release payload the version of its machine-os"
    ),
    Key(
        "bootimages",
        "table",
        "its boot images",
        table=(
            Key("config", "text", "the image.yaml file", required=True),
            Key("formats", "texts", "qcow2, raw, live-iso, pxe", required=True),
            Key("platforms", "text", "the platforms.yaml file"),
            Key("live", "text", "the folder with the live image's files"),
        ),
    ),
)

NODE = (
    Key("primary", "flag", "the release's main node stream; exactly one is"),
    Key("base", "text", '"stream" (when absent), or an image reference'),
    Key("treefile", "text", "the node layer's treefile", required=True),
    Key(
        "containerfile",
        "table",
        "the same layer for --engine buildah",
        table=(
            Key("file", "text", "the Containerfile", required=True),
            Key("build-args", "text", "its build-args file"),
        ),
    ),
    Key("lock", "text", "the file that keeps its lock"),
    Key("other-releases", "texts", "packages that may be of another release of the product"),
    Key("extensions", "text", "the extensions file"),
    Key("payload-tag", "text", "its name in a release payload"),
    Key("tag", "text", "the moving tag it is published under"),
)

OVERRIDE = (
    Key("target", "text", "the node target it applies to", required=True),
    Key("packages", "texts", "packages ahead of the base", required=True),
    Key("reason", "text", "why", required=True),
)

HOTFIX = (
    Key("name", "text", "its name", required=True),
    Key("target", "text", "the node target it changes", required=True),
    Key("files", "mapping", "path on the machine to path in the definitions"),
    Key("packages", "texts", "packages to replace"),
    Key("expires", "date", "the day it must be gone", required=True),
    Key("reason", "text", "why", required=True),
)

TOP = (
    Key("schema", "integer", "the schema's version: 1", required=True),
    Key("repos", "texts", "files with RPM repositories"),
    Key("public", "texts", "prefixes of addresses and images that anyone may have"),
    Key("registry", "text", "where publish puts images"),
    Key("revision-labels", "flag", "images say the revision of their definitions in git"),
    Key("node-only", "texts", "package patterns refused below the node layer"),
    Key("marker", "text", "the package whose absence calls for the overlay"),
    Key("stream", "table", "one table per stream"),
    Key("release", "table", "release.NAME.node.STREAM tables"),
    Key("override", "table", "packages ahead of the base"),
    Key("hotfix", "table", "changes for one customer"),
)
