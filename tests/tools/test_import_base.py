"""Import of an encapsulated commit: bit by bit, labelled, and only what is not there yet."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from importlab import TIME, Lab, Watched, cat, fsck, leftovers, listing, make_tree
from layertar import Tar
from strata.container.importer import import_image
from strata.container.selinux import policy_of, relabel
from strata.core.errors import SignatureError, TransportError
from strata.core.events import silent
from strata.core.process import run
from strata.oci.digest import Digest
from strata.oci.model import LAYER_GZIP
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource, open_source
from strata.ostree.checkout import checkout
from strata.ostree.gvariant import Variant
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_directory, commit_tree, scan
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer, writing

pytestmark = pytest.mark.tools


def test_the_base_comes_back_bit_by_bit(lab: Lab) -> None:
    repo = lab.repo()
    result = lab.pull(repo, "base")
    manifest, _ = lab.image(lab.base)
    assert result.base_commit == lab.commit
    assert repo.read_metadata(lab.commit, "commit") == lab.origin.read_metadata(
        lab.commit, "commit"
    )
    assert repo.is_complete(lab.commit)
    assert [layer.kind for layer in result.layers] == ["commit", *["chunk"] * 5]
    assert [layer.fetched_bytes for layer in result.layers] == [
        layer.size_bytes for layer in manifest.layers
    ]
    assert result.manifest_digest == lab.base.digest
    fsck(repo)
    assert listing(repo, result.base_commit) == listing(lab.origin, lab.commit)
    checkout(repo, Tree.load(repo, result.base_commit), str(lab.root / "out"), link=True)
    with writing(lab.origin, sync=False) as writer:
        assert scan(writer, str(lab.root / "out")) == Tree.load(lab.origin, lab.commit)


def test_the_merge_commit_says_what_it_is(lab: Lab) -> None:
    repo = lab.repo()
    result = lab.pull(repo, "base")
    manifest, _ = lab.image(lab.base)

    def value(key: str) -> str:
        shown = run(
            [
                "ostree",
                "show",
                f"--print-metadata-key={key}",
                f"--repo={repo.path}",
                result.merge_commit,
            ]
        ).stdout.strip()
        return shown[1:-1]

    assert value("ostree.manifest-digest") == str(lab.base.digest)
    assert json.loads(value("ostree.manifest").replace('\\"', '"')) == json.loads(
        lab.layout.read(lab.base)
    )
    stored = repo.commit(result.merge_commit).metadata
    assert stored["ostree.container.image-config"].as_text().encode() == lab.layout.read(
        manifest.config
    )
    assert stored["version"].as_text() == "12.9"
    merged, base = repo.commit(result.merge_commit), repo.commit(result.base_commit)
    assert merged.parent == result.base_commit
    assert (merged.root_contents, merged.root_meta) == (base.root_contents, base.root_meta)
    assert merged.timestamp == TIME
    assert merged.subject == merged.body == ""


def test_refs_name_the_image_and_its_layers(lab: Lab) -> None:
    repo = lab.repo()
    reference = ImageReference.parse("docker://example.com/coreos/a_b:latest")
    result = lab.pull(repo, "base", reference=reference)
    refs = repo.refs()
    image = "ostree/container/image/docker_3A__2F__2F_example_2E_com/coreos/a__b_3A_latest"
    assert refs.pop(image) == result.merge_commit
    blobs = {f"ostree/container/blob/sha256_3A_{of.digest.hex}": of.commit for of in result.layers}
    # Beside the refs all tools share, ours say which diff-id each layer was found to have.
    kinds = ["commit", *(["chunk"] * (len(result.layers) - 1))]
    diff_ids = lab.image(lab.base)[1].diff_ids
    read = {
        f"strata/layer/{kind}/{of.digest.hex}/{diff_id.hex}": of.commit
        for kind, of, diff_id in zip(kinds, result.layers, diff_ids, strict=True)
    }
    assert refs == {**blobs, **read}
    listed = run(["ostree", "refs", f"--repo={repo.path}"]).stdout.split()
    assert set(listed) == {image, *blobs, *read}


def test_a_second_import_fetches_nothing(lab: Lab) -> None:
    repo = lab.repo()
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    first = lab.pull(repo)
    before = repo.refs()
    started = time.monotonic()
    watched: list[Watched] = []

    def wrap(source: ImageSource) -> ImageSource:
        watched.append(Watched(source))
        return watched[0]

    second = lab.pull(repo, wrap=wrap)
    assert time.monotonic() - started < 1
    assert watched[0].opened == []
    assert second.fetched_bytes == 0
    assert (second.base_commit, second.merge_commit) == (first.base_commit, first.merge_commit)
    assert repo.refs() == before


def test_two_machines_get_the_same_merge_commit(lab: Lab) -> None:
    lab.derive(Tar().add("usr/bin/new", b"new", mtime=77).bytes())
    assert lab.pull(lab.repo("one")).merge_commit == lab.pull(lab.repo("two")).merge_commit


def test_a_machine_deployed_from_the_base_fetches_only_what_is_above_it(lab: Lab) -> None:
    repo = lab.repo()
    run(["ostree", "pull-local", f"--repo={repo.path}", str(lab.origin.path), lab.commit])
    run(["ostree", "refs", f"--repo={repo.path}", "--create=ostree/0/1/0", lab.commit])
    image = lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    result = lab.pull(repo)
    manifest, _ = lab.image(image)
    # The commit layer says that this is the image of that commit; of the chunks none is wanted.
    sizes = [layer.size_bytes for layer in manifest.layers]
    assert [layer.fetched_bytes for layer in result.layers] == [sizes[0], *[0] * 5, sizes[-1]]
    assert lab.pull(repo).fetched_bytes == 0
    assert cat(repo, result.merge_commit, "/usr/bin/new") == "new"
    assert repo.resolve("ostree/0/1/0") == lab.commit
    fsck(repo)


def test_of_a_commit_that_is_partial_only_what_lacks_is_fetched(lab: Lab) -> None:
    repo = lab.repo()
    manifest, _ = lab.image(lab.base)
    broken = manifest.layers[3].digest
    with pytest.raises(TransportError, match="the registry went away"):
        lab.pull(repo, "base", wrap=lambda source: Watched(source, broken))
    assert not repo.is_complete(lab.commit)
    assert leftovers(repo) == []
    fsck(repo)
    there = {
        layer.digest
        for layer in manifest.layers
        if f"ostree/container/blob/sha256_3A_{layer.digest.hex}" in repo.refs()
    }
    assert there
    assert broken not in there
    result = lab.pull(repo, "base")
    assert result.base_commit == lab.commit
    assert {layer.digest for layer in result.layers if not layer.fetched_bytes} == there
    assert repo.is_complete(lab.commit)
    fsck(repo)


def test_an_image_that_encapsulates_no_commit_is_its_layers(lab: Lab) -> None:
    """Plain images, and encapsulated ones whose labels a tool took away, import too."""
    manifest, config = lab.image(lab.base)
    lab.write(manifest.layers, config.diff_ids, labels={}, tag="plain")
    repo = lab.repo()
    result = lab.pull(repo, "plain")
    fsck(repo)
    assert result.base_commit == ""
    assert {layer.kind for layer in result.layers} == {"derived"}
    assert repo.commit(result.merge_commit).parent == ""
    before, after = Tree.load(lab.origin, lab.commit), Tree.load(repo, result.merge_commit)
    share = after.folder("usr/share")
    assert share is not None
    del share.dirs["factory"]  # /var/tmp, which every commit layer brings
    assert after.dirs["usr"] == before.dirs["usr"]
    again = lab.pull(repo, "plain")
    assert (again.merge_commit, again.fetched_bytes) == (result.merge_commit, 0)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("[composefs]\nenabled = maybe\n", True),
        ("[root]\ntransient = true\n", True),
        ("[composefs]\nenabled = no\n", False),
        ("nonsense", False),
    ],
)
def test_top_level_folders_stay_where_the_root_takes_them(lab: Lab, text: str, kept: bool) -> None:
    """With composefs or a transient root, /opt of a layer is kept; /var where it is wanted."""
    source = lab.root / "other"
    make_tree(source)
    conf = source / "usr/lib/ostree/prepare-root.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(text)
    with writing(lab.origin, sync=False) as writer:
        commit = commit_directory(lab.origin, writer, str(source), timestamp=TIME)
    lab.base = lab.encapsulate(commit)
    lab.derive(Tar().add("opt/tool/bin", b"tool").add("var/lib/state", b"state").bytes())
    repo = lab.repo()
    with open_source(lab.reference(), architecture="x86_64") as opened:
        result = import_image(
            opened, repo, reference=lab.reference(), keep_var=kept, reporter=silent()
        )
    tree = Tree.load(repo, result.merge_commit)
    assert isinstance(tree.lookup("opt/tool/bin"), str) == kept
    assert isinstance(tree.lookup("var/lib/state"), str) == kept
    assert isinstance(tree.lookup("usr/share/factory/var/lib/state"), str) != kept
    fsck(repo)


CONTEXTS = """\
/.*\tsystem_u:object_r:default_t:s0
/\t-d\tsystem_u:object_r:root_t:s0
/usr(/.*)?\tsystem_u:object_r:usr_t:s0
/usr/bin(/.*)?\tsystem_u:object_r:bin_t:s0
/usr/bin/.*\t-l\tsystem_u:object_r:bin_link_t:s0
/usr/bin/ping\t--\tsystem_u:object_r:ping_exec_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
/etc/ssh(/.*)?\tsystem_u:object_r:sshd_etc_t:s0
/mnt(/[^/]*)?\t-d\tsystem_u:object_r:mnt_t:s0
/proc\t-d\tsystem_u:object_r:never_t:s0
/usr/share/doc/.*\t--\t<<none>>
"""


def with_policy(lab: Lab, config: str) -> Path:
    """A base that carries a policy; returns its source tree."""
    source = lab.root / "labelled"
    make_tree(source)
    policy = source / "usr/etc/selinux/sample"
    (policy / "contexts/files").mkdir(parents=True)
    (policy / "contexts/files/file_contexts").write_text(CONTEXTS)
    (policy / "contexts/files/file_contexts.subs_dist").write_text("/usr/etc /etc\n")
    (policy / "policy").mkdir()
    (policy / "policy/policy.33").write_bytes(b"not read by who only labels")
    (source / "usr/etc/selinux/config").write_text(config)
    with writing(lab.origin, sync=False) as writer:
        commit = commit_directory(lab.origin, writer, str(source), timestamp=TIME)
    lab.base = lab.encapsulate(commit)
    return source


def test_a_merged_tree_is_labelled_as_ostree_would(lab: Lab, tmp_path: Path) -> None:
    source = with_policy(lab, "# comment\nSELINUX=enforcing\nSELINUXTYPE=sample\n")
    tar = Tar().add("usr/bin/ping", b"new ping").add("etc/ssh/ssh_config", b"x")
    lab.derive(tar.symlink("usr/bin/link", "ping").bytes())
    repo = lab.repo()
    result = lab.pull(repo)
    fsck(repo)
    (source / "usr/bin/ping").unlink()
    (source / "usr/bin/ping").write_bytes(b"new ping")
    (source / "usr/etc/ssh/ssh_config").write_bytes(b"x")
    (source / "usr/bin/link").symlink_to("ping")
    theirs = f"--repo={tmp_path / 'theirs'}"
    run(["ostree", "init", theirs, "--mode=bare"])
    policy = tmp_path / "policy"
    shutil.copytree(source / "usr/etc", policy / "etc")
    commit = ["ostree", "commit", theirs, "-b", "x", f"--selinux-policy={policy}"]
    run([*commit, f"--tree=dir={source}"])
    expected = run(["ostree", "ls", theirs, "-R", "-C", "-X", "x"]).stdout
    assert "bin_link_t" in expected
    assert "sshd_etc_t" in expected
    ours = f"--repo={repo.path}"
    assert run(["ostree", "ls", ours, "-R", "-C", "-X", result.merge_commit]).stdout == expected
    # What has its label keeps its object: the same again writes nothing.
    with writing(repo, sync=False) as writer:
        tree = Tree.load(repo, result.merge_commit)
        with policy_of(repo, tree) as labels:
            assert labels is not None
            assert relabel(repo, writer, tree, labels) == 0


def test_a_disabled_policy_labels_nothing(lab: Lab) -> None:
    with_policy(lab, "SELINUX=disabled\nSELINUXTYPE=sample\n")
    lab.derive(Tar().add("usr/bin/new", b"new").bytes())
    repo = lab.repo()
    shown = run(["ostree", "ls", f"--repo={repo.path}", "-R", "-X", lab.pull(repo).merge_commit])
    assert "security.selinux" not in shown.stdout


def test_the_digest_of_every_file_is_that_of_its_source(lab: Lab) -> None:
    """End to end, by another road: sha256 of what `ostree checkout` writes."""
    repo = lab.repo()
    result = lab.pull(repo, "base")
    run(
        [
            "ostree",
            "checkout",
            "-C",
            f"--repo={repo.path}",
            result.merge_commit,
            str(lab.root / "o"),
        ]
    )

    def sums(root: Path) -> dict[str, str]:
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in root.rglob("*")
            if p.is_file() and not p.is_symlink()
        }

    assert sums(lab.root / "o") == sums(lab.root / "source")


# --- what is there already ---------------------------------------------------------------------


def test_a_layer_that_was_compressed_anew_is_not_fetched_again(lab: Lab) -> None:
    repo = lab.repo()
    tar = Tar().add("usr/bin/new", b"new").bytes()
    lab.derive(tar)
    first = lab.pull(repo)
    lab.derive(tar, pack=lambda data: gzip.compress(data, 1, mtime=9), tag="again")
    second = lab.pull(repo, "again")
    assert second.layers[-1].digest != first.layers[-1].digest
    assert second.fetched_bytes == 0
    assert second.layers[-1].commit == first.layers[-1].commit


def test_layers_no_image_has_any_more_are_let_go(lab: Lab) -> None:
    repo = lab.repo()
    name = ImageReference.parse("docker://example.com/os:latest")
    lab.derive(Tar().add("usr/bin/new", b"1").bytes(), tag="one")
    lab.derive(Tar().add("usr/bin/new", b"2").bytes(), tag="two")
    first = lab.pull(repo, "one", reference=name)
    kept = lab.pull(repo, "one", reference=ImageReference.parse("docker://example.com/kept:1"))
    second = lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert first.layers == tuple(kept.layers) or kept.fetched_bytes == 0
    assert {kept.layers[-1].digest.hex, second.layers[-1].digest.hex} <= blobs
    repo.delete_ref("ostree/container/image/docker_3A__2F__2F_example_2E_com/kept_3A_1")
    lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert blobs == {layer.digest.hex for layer in second.layers}
    run(["ostree", "prune", "--refs-only", f"--repo={repo.path}"])
    fsck(repo)
    assert cat(repo, second.merge_commit, "/usr/bin/new") == "2"


def test_layers_of_what_is_deployed_are_kept(lab: Lab) -> None:
    repo = lab.repo()
    lab.derive(Tar().add("usr/bin/new", b"1").bytes(), tag="one")
    lab.derive(Tar().add("usr/bin/new", b"2").bytes(), tag="two")
    name = ImageReference.parse("docker://example.com/os:latest")
    first = lab.pull(repo, "one", reference=name)
    with writing(repo, sync=False) as writer:
        writer.set_ref("ostree/0/1/0", first.merge_commit)
    lab.pull(repo, "two", reference=name)
    blobs = {ref.rpartition("_")[2] for ref in repo.refs("ostree/container/blob/")}
    assert first.layers[-1].digest.hex in blobs


@pytest.mark.parametrize("text", ["null", "{}", "not JSON", None])
def test_images_stored_by_other_tools_do_not_stand_in_the_way(lab: Lab, text: str | None) -> None:
    """Readers must take a configuration that is absent, or `null`."""
    repo = lab.repo()
    metadata = {"ostree.manifest-digest": Variant.text("sha256:" + "0" * 64)}
    manifest, _ = lab.image(lab.base)
    metadata["ostree.manifest"] = Variant.text(manifest.to_bytes().decode())
    if text is not None:
        metadata["ostree.container.image-config"] = Variant.text(text)
    with writing(repo, sync=False) as writer:
        commit = commit_tree(writer, Tree(), timestamp=0, metadata=metadata)
        writer.set_ref("ostree/container/image/other", commit)
    lab.derive(Tar().add("usr/bin/new", b"1").bytes())
    result = lab.pull(repo)
    assert cat(repo, result.merge_commit, "/usr/bin/new") == "1"
    assert repo.resolve("ostree/container/image/other") == commit


# --- a remote's signature ------------------------------------------------------------------------


@pytest.fixture
def signer(lab: Lab) -> Iterator[Path]:
    """The base commit signed by a made-up key, encapsulated again; gives the public key."""
    home = tempfile.mkdtemp(prefix="gpg")  # short: its agent's socket has to fit in 107 characters
    gpg = ["gpg", f"--homedir={home}", "--batch", "--quiet"]
    gpg += ["--pinentry-mode=loopback", "--passphrase="]
    run([*gpg, "--quick-generate-key", "Sample <sample@example.com>", "ed25519", "sign", "never"])
    keys = run([*gpg, "--list-keys", "--with-colons"]).stdout.splitlines()
    key = next(line.split(":")[9] for line in keys if line.startswith("fpr:"))
    sign = ["ostree", "gpg-sign", f"--repo={lab.origin.path}", f"--gpg-homedir={home}"]
    run([*sign, lab.commit, key])
    public = lab.root / "key.gpg"
    run([*gpg, "--export", "--output", str(public)])
    run(["gpgconf", f"--homedir={home}", "--kill", "all"])
    lab.base = lab.encapsulate(lab.commit)
    lab.layout.tag("base", lab.base)
    yield public
    shutil.rmtree(home)


def add_remote(repo: Repo, name: str, key: Path | None, option: str = "gpg-verify=true") -> None:
    add = ["ostree", "remote", "add", f"--repo={repo.path}", f"--set={option}", name]
    imported = [f"--gpg-import={key}"] if key else []
    run([*add, *imported, "https://example.com/repo"])


def test_a_commit_its_remote_signed_is_imported_with_its_signature(lab: Lab, signer: Path) -> None:
    repo = lab.repo()
    add_remote(repo, "sample", signer)
    result = lab.pull(repo, "base", signed_by="sample")
    assert result.base_commit == lab.commit
    shown = run(["ostree", "show", f"--repo={repo.path}", "--gpg-verify-remote=sample", lab.commit])
    assert 'Good signature from "Sample <sample@example.com>"' in shown.stdout
    # Nothing is lost on the way: the image made of what was imported is the one it came from.
    lab.origin = repo
    assert lab.encapsulate(lab.commit).digest == lab.base.digest
    # What is there already is held against the keys too.
    assert lab.pull(repo, "base", signed_by="sample").fetched_bytes == 0
    add_remote(repo, "other", None)
    with pytest.raises(SignatureError, match="the remote other asks for"):
        lab.pull(repo, "base", signed_by="other")
    elsewhere = ImageReference.parse("docker://example.com/kept:1")
    with pytest.raises(SignatureError, match="the remote other asks for"):
        lab.pull(repo, "base", reference=elsewhere, signed_by="other")
    fsck(repo)


@pytest.mark.parametrize(
    ("remote", "option", "message"),
    [
        (
            "other",
            "gpg-verify=true",
            "the remote other asks for: Signature made .*; Can't check signature: public key",
        ),
        ("none", "gpg-verify=false", "the remote none asks for: "),
        ("unknown", "", "the remote unknown asks for: .*unknown"),
    ],
)
def test_a_commit_no_trusted_key_signed_is_refused(
    lab: Lab, signer: Path, remote: str, option: str, message: str
) -> None:
    repo = lab.repo()
    if option:
        add_remote(repo, remote, None, option)
    with pytest.raises(SignatureError, match=message):
        lab.pull(repo, "base", signed_by=remote)
    assert repo.refs() == {}
    assert not repo.has(lab.commit, "commit")
    assert leftovers(repo) == []
    fsck(repo)


def test_a_commit_without_a_signature_is_refused(lab: Lab, signer: Path) -> None:
    repo = lab.repo()
    add_remote(repo, "sample", signer)
    Path(lab.origin.object_path(lab.commit, "commitmeta")).unlink()
    lab.layout.tag("unsigned", lab.encapsulate(lab.commit))
    with pytest.raises(SignatureError, match=r"the remote sample asks for: .*no signatures"):
        lab.pull(repo, "unsigned", signed_by="sample")
    assert not repo.has(lab.commit, "commit")
    # Fetched without asking, it is there, and still not signed.
    lab.pull(repo, "unsigned")
    with pytest.raises(SignatureError, match=r"the remote sample asks for: .*no signatures"):
        lab.pull(repo, "unsigned", signed_by="sample")


def test_an_image_without_a_commit_has_nothing_a_remote_signs(lab: Lab) -> None:
    tar = Tar().add("usr/bin/x", b"x").bytes()
    lab.write([lab.layout.add(gzip.compress(tar), LAYER_GZIP)], [Digest.of(tar)], labels={})
    with pytest.raises(SignatureError, match="no commit that the remote sample could have signed"):
        lab.pull(lab.repo(), signed_by="sample")


def test_a_signature_that_comes_later_is_taken(lab: Lab, signer: Path) -> None:
    repo = lab.repo()
    add_remote(repo, "sample", signer)
    path = Path(lab.origin.object_path(lab.commit, "commitmeta"))
    signature = path.read_bytes()
    path.unlink()
    lab.layout.tag("unsigned", lab.encapsulate(lab.commit))
    lab.pull(repo, "unsigned")
    assert not repo.has(lab.commit, "commitmeta")
    path.write_bytes(signature)
    manifest, _ = lab.image(lab.base)
    result = lab.pull(repo, "base", signed_by="sample")
    assert result.fetched_bytes == manifest.layers[0].size_bytes
    assert repo.read_metadata(lab.commit, "commitmeta") == signature
    assert lab.pull(repo, "base", signed_by="sample").fetched_bytes == 0
    fsck(repo)


def test_nothing_of_an_unsigned_commit_is_written_before_it_is_refused(
    lab: Lab, signer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = lab.repo()
    add_remote(repo, "other", None)
    written: list[str] = []
    monkeypatch.setattr(
        Writer, "metadata", lambda self, kind, data, expected=None: written.append(kind)
    )
    with pytest.raises(SignatureError):
        lab.pull(repo, "base", signed_by="other")
    assert written == []
