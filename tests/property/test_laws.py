"""Laws: of packing, of tars and documents, of treefiles; hostile bytes."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.container.compress import Gzip
from strata.container.packing import ALWAYS, Component, pack
from strata.core.errors import DefinitionError, ImageError
from strata.oci.compression import GzipReader
from strata.oci.digest import Digest
from strata.oci.model import INDEX, MANIFEST, ImageConfig, Index, Manifest
from strata.oci.tar import FILE as TAR_FILE
from strata.oci.tar import TarEntry, TarReader, TarWriter
from strata.rpm.header import Header, HeaderError
from strata.rpm.inventory import package_of
from strata.treefile.containerfile import parse_containerfile
from strata.treefile.project import parse_project
from strata.treefile.yaml import parse_yaml

pytestmark = pytest.mark.property


# --- packing -------------------------------------------------------------------------------------

components = st.lists(
    st.builds(
        lambda number, frequency, size: Component(f"p{number}", f"p{number}", "s", frequency, size),
        st.integers(0, 500),
        st.sampled_from([0, 1, 5, 30, ALWAYS]),
        st.integers(0, 1 << 30),
    ),
    unique_by=lambda component: component.identifier,
    max_size=120,
)


@given(components, st.integers(4, 70))
def test_any_packing_covers_every_component_once_within_the_limit(
    items: list[Component], bins: int
) -> None:
    packed = pack(items, bins)
    names = [item.identifier for chunk in packed for item in chunk]
    assert sorted(names) == sorted(item.identifier for item in items)
    assert len(packed) <= bins
    assert pack(items[::-1], bins) == packed


# --- tars and compression ------------------------------------------------------------------------

tar_entries = st.builds(
    lambda path, mode, uid, body, xattrs: (
        TarEntry(path, TAR_FILE, mode, uid, 0, len(body), xattrs=tuple(xattrs.items())),
        body,
    ),
    st.binary(min_size=1, max_size=300).map(lambda data: b"f" + data.replace(b"\0", b"x") + b"e"),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=1500),
    st.dictionaries(
        st.sampled_from([b"user.a", b"user.b", b"security.capability"]), st.binary(max_size=40)
    ),
)


@given(st.lists(tar_entries, max_size=5))
def test_what_is_written_is_read(items: list[tuple[TarEntry, bytes]]) -> None:
    sink = io.BytesIO()
    tar = TarWriter(sink)
    for entry, body in items:
        tar.entry(entry, body)
    tar.finish()
    reader = TarReader(io.BytesIO(sink.getvalue()))
    assert [(entry, reader.read_all(2000)) for entry in reader] == items


@given(st.binary(max_size=3000))
def test_hostile_tars_raise_nothing_but_image_errors(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        for _ in TarReader(io.BytesIO(data)):
            pass


@given(st.integers(0, 1023), st.integers(0, 255))
def test_a_flipped_byte_in_a_header_never_crashes(position: int, value: int) -> None:
    sink = io.BytesIO()
    tar = TarWriter(sink)
    tar.entry(
        TarEntry(b"x" * 120, TAR_FILE, 0o644, size_bytes=5, xattrs=((b"user.a", b"1"),)), b"hello"
    )
    tar.finish()
    data = bytearray(sink.getvalue())
    data[position] = value
    with contextlib.suppress(ImageError):
        reader = TarReader(io.BytesIO(bytes(data)))
        for _ in reader:
            reader.read(10)


@given(st.binary(max_size=5000), st.integers(1, 600))
def test_gzip_round_trips_in_any_pieces(data: bytes, size: int) -> None:
    sink = io.BytesIO()
    writer = Gzip(sink, 6)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
    writer.finish()
    reader = GzipReader(io.BytesIO(sink.getvalue()))
    out = b""
    while chunk := reader.read(size):
        assert len(chunk) <= size
        out += chunk
    assert out == data


@given(st.binary(max_size=400))
def test_hostile_gzip_raises_nothing_but_image_errors(data: bytes) -> None:
    reader = GzipReader(io.BytesIO(b"\x1f\x8b\x08\x00" + data))
    with contextlib.suppress(ImageError):
        while reader.read(100):
            pass


# --- documents -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["config", "layers", "digest", "size", "manifests", "rootfs", "Labels"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_hostile_documents_raise_nothing_but_image_errors(value: object) -> None:
    data = json.dumps(value).encode()
    for kind in (Manifest, Index, ImageConfig):
        with contextlib.suppress(ImageError):
            kind.parse(data)


def strange(**known: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """An object with these keys, each there or not, and any others."""
    others = st.dictionaries(
        st.text(max_size=6).filter(lambda key: key not in known and key not in CLAIMED),
        json_values,
        max_size=3,
    )
    some = st.fixed_dictionaries({}, optional=known)
    return st.tuples(others, some).map(lambda pair: {**pair[0], **pair[1]})


CLAIMED = {"architecture", "os", "created", "created_by", "config", "rootfs", "history"}
CLAIMED |= {"mediaType", "digest", "size", "annotations", "platform", "schemaVersion"}
CLAIMED |= {"layers", "manifests"}
texts = st.text(min_size=1, max_size=8)
digests = st.binary(max_size=4).map(lambda data: str(Digest.of(data)))
histories = strange(
    created=texts, created_by=texts, empty_layer=st.booleans(), author=texts, comment=texts
)
configs = st.tuples(
    strange(variant=texts, author=texts, **{"os.version": texts, "os.features": st.lists(texts)}),
    st.fixed_dictionaries(
        {
            "architecture": texts,
            "os": texts,
            "config": strange(
                Labels=st.dictionaries(texts, texts, max_size=2), Cmd=st.lists(texts)
            ),
            "rootfs": st.lists(digests, max_size=3).map(
                lambda ids: {"type": "layers", "diff_ids": ids}
            ),
            "history": st.lists(histories, max_size=3),
        },
        optional={"created": texts},
    ),
).map(lambda pair: {**pair[0], **pair[1]})
platforms = st.tuples(
    strange(variant=texts), st.fixed_dictionaries({"os": texts, "architecture": texts})
).map(lambda pair: {**pair[0], **pair[1]})
descriptors = st.tuples(
    strange(urls=st.lists(texts), artifactType=texts, data=texts),
    st.fixed_dictionaries(
        {"mediaType": texts, "digest": digests, "size": st.integers(0, 1 << 40)},
        optional={
            "annotations": st.dictionaries(texts, texts, min_size=1, max_size=2),
            "platform": platforms,
        },
    ),
).map(lambda pair: {**pair[0], **pair[1]})
indexes = st.tuples(
    strange(artifactType=texts, subject=descriptors),
    st.fixed_dictionaries({"manifests": st.lists(descriptors, max_size=3)}),
).map(lambda pair: {**pair[0], **pair[1], "schemaVersion": 2, "mediaType": INDEX})
manifests = st.tuples(
    strange(artifactType=texts, subject=descriptors),
    st.fixed_dictionaries({"config": descriptors, "layers": st.lists(descriptors, max_size=3)}),
).map(lambda pair: {**pair[0], **pair[1], "schemaVersion": 2, "mediaType": MANIFEST})


@given(
    st.one_of(
        st.tuples(st.just(ImageConfig), configs),
        st.tuples(st.just(Manifest), manifests),
        st.tuples(st.just(Index), indexes),
    )
)
def test_documents_of_others_come_back_with_every_key(
    item: tuple[type[ImageConfig | Manifest | Index], dict[str, object]],
) -> None:
    kind, document = item
    parsed = kind.parse(json.dumps(document).encode())
    assert json.loads(parsed.to_bytes()) == document
    assert kind.parse(parsed.to_bytes()) == parsed


@given(st.binary(max_size=600))
def test_hostile_package_headers_raise_nothing_but_header_errors(data: bytes) -> None:
    with contextlib.suppress(HeaderError):
        package_of(Header.parse(data))


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_hostile_definitions_raise_nothing_but_definition_errors(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        parse_yaml(text, "x.yaml")


containerfile_lines = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "# escape=`",
                "ARG A=1",
                "ARG B",
                "FROM ${A}",
                "FROM x AS y",
                "from ${B:-$A}",
                "RUN --mount=type=secret,id=a,target=/b \\",
                "RUN --mount=from=y <<EOF",
                "COPY --from=0 a b",
                "EOF",
                "a `",
            ]
        ),
        st.text(max_size=30),
    ),
    max_size=12,
)


@given(containerfile_lines)
@settings(max_examples=400)
def test_hostile_containerfiles_raise_nothing_but_definition_errors(lines: list[str]) -> None:
    with contextlib.suppress(DefinitionError):
        found = parse_containerfile("\n".join(lines), "Containerfile", {"B": "b"})
        stages = {stage.name.lower() for stage in found.stages} - {""}
        assert found.stages
        assert all(image.text for image in found.images)
        assert len(stages) == len([stage for stage in found.stages if stage.name])


toml_lines = st.lists(
    st.sampled_from(
        [
            "schema = 1",
            "[stream.s]",
            'version = "1.2"',
            'arches = ["x86_64"]',
            "coreos = {}",
            'coreos = { treefile = "../../etc/passwd" }',
            '[release."1".node.s]',
            "primary = true",
            "[[override]]",
            "[release]",
            "node = 3",
            'stream = "x"',
            "release = []",
        ]
    ),
    max_size=8,
)


@given(toml_lines)
def test_hostile_projects_raise_nothing_but_definition_errors(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    with contextlib.suppress(DefinitionError):
        parse_project("\n".join(lines), tmp_path_factory.getbasetemp())
