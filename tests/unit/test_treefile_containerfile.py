"""Containerfiles: stages, images, mounts and secrets, whatever stands around them."""

from __future__ import annotations

import time

import pytest

from strata.core.errors import DefinitionError
from strata.treefile.containerfile import Containerfile, parse_containerfile

pytestmark = pytest.mark.unit

# The structure of a node image's file: a secret, stages on stages, a heredoc.
NODE = """\
# how to build it: see the docs

ARG IMAGE_FROM=overridden
FROM ${IMAGE_FROM} as build
ARG CI=0
RUN --mount=type=bind,target=/run/src --mount=type=secret,id=yumrepos,target=/etc/secret.repo \\
    # a comment in between

    /run/src/build.sh
RUN --mount=type=bind,from=registry.example/tools:1,target=/tools,rw <<EOT
FROM registry.example/not-an-image
EOT

FROM build AS metadata
RUN --mount=type=secret,target=/run/secrets/key /run/src/metadata
FROM build
COPY --from=metadata /a /a
COPY --from=0 /b /b
COPY --chown=0:0 --from=registry.example/c@sha256:0 /c /c
LABEL a=${CI} \\
      b=2
"""


def parse(text: str, **arguments: str) -> Containerfile:
    return parse_containerfile(text, "Containerfile", arguments)


def test_stages_images_and_secrets_are_found() -> None:
    found = parse(NODE, IMAGE_FROM="registry.example/base:10", CI="1", OTHER="x")
    assert [(stage.name, stage.image.text) for stage in found.stages] == [
        ("build", "registry.example/base:10"),
        ("metadata", "build"),
        ("", "build"),
    ]
    assert [(image.text, str(image.place), image.argument) for image in found.images] == [
        ("registry.example/base:10", "Containerfile:4", "IMAGE_FROM"),
        ("registry.example/tools:1", "Containerfile:10", ""),
        ("registry.example/c@sha256:0", "Containerfile:19", ""),
    ]
    assert [(secret.text, str(secret.place)) for secret in found.secrets] == [
        ("yumrepos", "Containerfile:6"),
        ("key", "Containerfile:15"),
    ]
    first = found.stages[0]
    assert first.arguments == {"CI": "1"}
    assert first.instructions[1].text == "/run/src/build.sh"
    assert first.instructions[1].mounts[0].kind == "bind"
    assert found.arguments == {"IMAGE_FROM": "registry.example/base:10"}
    assert parse(NODE).images[0].text == "overridden"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("$A", "one"),
        ("r.example/${A}:${B:-two}", "r.example/one:two"),
        ("r.example/x${B:+-b}${A:+-a}", "r.example/x-a"),
        ("r.example/${B:-$A}", "r.example/one"),
        ("oci-archive:./out.ociarchive", "oci-archive:./out.ociarchive"),
    ],
)
def test_variables_are_replaced(image: str, expected: str) -> None:
    assert parse(f"ARG A=one\nARG B\nFROM {image}\n").stages[0].image.text == expected


def test_arguments_have_defaults_of_one_another() -> None:
    found = parse("ARG A=1 B=\"$A-2\" C='$A'\nFROM x\nARG A\nARG D=${A}${B}\nARG E\n", A="9")
    assert found.arguments == {"A": "9", "B": "9-2", "C": "$A"}
    assert found.stages[0].arguments == {"A": "9", "D": "99-2"}


def test_another_escape_and_a_platform() -> None:
    text = "# escape=`\nARG P=linux/arm64\nfrom --platform=$P x`\n  as Y\nrun a \\\nrun b\n"
    (stage,) = parse(text).stages
    assert (stage.name, stage.platform) == ("Y", "linux/arm64")
    assert [one.text for one in stage.instructions] == ["a \\", "b"]


def test_heredocs_are_seen_through() -> None:
    text = (
        "FROM x\nRUN <<'A' cat <<-B && echo a<<c $((1 << 2))\nRUN no\nA\n\tCOPY no\n\tB\n"
        "COPY <<C /f\nC \nC\nRUN yes\n"
    )
    (stage,) = parse(text).stages
    assert [one.name for one in stage.instructions] == ["RUN", "COPY", "RUN"]
    assert stage.instructions[2].text == "yes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Containerfile has no FROM"),
        ("RUN x\nFROM y\n", "Containerfile:1: RUN stands before the first FROM"),
        ("FROM x\n\nINSTALL y\n", "Containerfile:3: 'INSTALL' is no instruction"),
        ("FROM x AS\n", "Containerfile:1: FROM takes an image"),
        ("FROM x\nRUN\n", "Containerfile:2: RUN says nothing"),
        ("ARG A\nFROM ${A}\n", r"Containerfile:2: \$\{A\} has no value"),
        ("ARG A\nFROM ${A%x}\n", r"of an unknown form"),
        ("FROM x AS a\nFROM y AS A\n", "Containerfile:2: two stages are called A"),
        ("FROM x\nARG 1=2\n", "Containerfile:2: ARG 1=2 is not NAME or NAME=VALUE"),
        ("FROM x\nRUN <<EOF\nFROM y\n", "Containerfile:2: the heredoc EOF is not ended"),
        ("# escape=x\nFROM y\n", "Containerfile:1: escape is x"),
        ("FROM x\n" + " " * (1 << 20), "Containerfile is larger than 1048576 bytes"),
        ("ARG A=" + "a" * 4000 + "\nARG B=$A$A\nFROM x\n", "a value is longer than 4096"),
    ],
)
def test_what_cannot_be_built_is_said(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\nRUN " + "--a " * 200_000 + "b\n",
        "FROM x\nARG " + "a=$a " * 200_000 + "\n",
        "".join(f"FROM x AS a{number}\n" for number in range(50_000)),
        "FROM x\n" + "RUN a <<E\nE\n" * 60_000,
        "FROM x\nRUN a \\\n" + "\\\n" * 400_000 + "b\n",
    ],
)
def test_large_files_take_no_long_time(text: str) -> None:
    start = time.monotonic()
    assert parse(text).images
    assert time.monotonic() - start < 10
