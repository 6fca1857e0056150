"""Laws of image references."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.errors import UsageError
from strata.oci.digest import Digest
from strata.oci.reference import (
    BY_POLICY,
    BY_REMOTE,
    UNVERIFIED,
    ImageReference,
    SignaturePolicy,
    SignedReference,
)

pytestmark = pytest.mark.property

words = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)
digests = st.one_of(st.none(), st.binary(max_size=4).map(Digest.of))
tags = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True))
paths = st.text(st.characters(exclude_characters=":@\0"), min_size=1)
anything = st.text(st.characters(exclude_characters="\0"), min_size=1)
hosts = st.sampled_from(["example.com", "registry.example:5000", "localhost"])
repositories = st.builds(
    lambda host, path: "/".join((host, *path)), hosts, st.lists(words, min_size=1, max_size=3)
)
references = st.one_of(
    st.builds(ImageReference, st.just("docker"), repositories, tags, digests),
    st.builds(ImageReference, st.sampled_from(["oci", "oci-archive"]), paths, tags, digests),
    st.builds(ImageReference, st.just("docker-archive"), paths, tags),
    st.builds(
        ImageReference, st.sampled_from(["dir", "containers-storage", "docker-daemon"]), anything
    ),
)
signatures = st.one_of(
    st.builds(SignaturePolicy, st.sampled_from([UNVERIFIED, BY_POLICY])),
    st.builds(SignaturePolicy, st.just(BY_REMOTE), words),
)


@given(references)
def test_a_reference_reads_as_it_was_shown(reference: ImageReference) -> None:
    assert ImageReference.parse(str(reference)) == reference


@given(st.builds(SignedReference, signatures, references))
def test_a_signed_reference_reads_as_it_was_shown(reference: SignedReference) -> None:
    assert SignedReference.parse(str(reference)) == reference
    assert SignedReference.parse_any(str(reference)) == reference


prefixes = st.sampled_from(
    ["", "docker:", "registry:", "oci:", "oci-archive:", "dir:", "ostree-remote-registry:r:"]
)


@given(prefixes, st.text())
def test_what_is_read_at_all_is_read_the_same_again(prefix: str, text: str) -> None:
    with contextlib.suppress(UsageError):
        reference = SignedReference.parse_any(prefix + text)
        assert SignedReference.parse(str(reference)) == reference
