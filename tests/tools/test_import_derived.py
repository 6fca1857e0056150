"""Import of layers above the base: what they add, replace and remove."""

from __future__ import annotations

import gzip
import random
import tarfile
from collections.abc import Callable

import pytest

from importlab import Lab, cat, fsck, leftovers, listing, zstd
from layertar import Tar
from strata.container.importplan import ImportResult
from strata.core.events import Event, Reporter, Warned
from strata.oci.model import LAYER, LAYER_GZIP, LAYER_ZSTD
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree

pytestmark = pytest.mark.tools


def derived(lab: Lab, *tars: Tar) -> tuple[Repo, dict[str, str], dict[str, str], ImportResult]:
    """Import the base with these layers: repository, listing before, listing after, result."""
    repo = lab.repo()
    lab.derive(*(tar.bytes() for tar in tars))
    result = lab.pull(repo)
    fsck(repo)
    assert leftovers(repo) == []
    return repo, listing(lab.origin, lab.commit), listing(repo, result.merge_commit), result


def test_files_are_added_replaced_and_removed(lab: Lab) -> None:
    tar = (
        Tar()
        .folder("usr")
        .folder("usr/bin", mode=0o711, owner=(5, 0))
        .add("usr/bin/new", b"new", mode=0o6755, owner=(3, 4), mtime=5)
        .add("./usr/bin//tool", b"smaller")
        .add("usr/bin/.wh.ping")
        .add("usr/share/.wh.doc")
        .add("usr/share/.wh.never-there")
    )
    repo, before, after, result = derived(lab, tar)
    expected = {
        p: v for p, v in before.items() if not p.startswith(("/usr/share/doc", "/usr/bin/ping"))
    }
    expected["/usr/bin"] = "d00711 5:0"
    expected["/usr/bin/new"] = "-06755 3:4 3"
    expected["/usr/bin/tool"] = "-00644 0:0 7"
    assert after == expected
    assert cat(repo, result.merge_commit, "/usr/bin/tool") == "smaller"
    assert [layer.kind for layer in result.layers] == ["commit", *["chunk"] * 5, "derived"]
    assert result.base_commit == lab.commit


def test_folders_no_entry_describes_keep_the_bases_metadata(lab: Lab) -> None:
    (lab.root / "unused").mkdir()
    _, before, after, _ = derived(lab, Tar().add("tmp/x", b"").add("usr/lib/pkg/inner/n/e/w", b"x"))
    assert after["/tmp"] == before["/tmp"] == "d01777 0:0"
    assert after["/usr/lib/pkg/inner/n/e"] == "d00755 0:0"


def test_an_opaque_folder_hides_what_is_below_but_not_its_own(lab: Lab) -> None:
    for order in (1, -1):
        steps = ["usr/lib/pkg/.wh..wh..opq", "usr/lib/pkg/own"][::order]
        tar = Tar().folder("usr/lib/pkg")
        for step in steps:
            tar.add(step, b"")
        tag = f"order{order}"
        lab.derive(tar.bytes(), tag=tag)
        repo = lab.repo(tag)
        result = lab.pull(repo, tag)
        after = listing(repo, result.merge_commit)
        assert [p for p in after if p.startswith("/usr/lib/pkg/")] == ["/usr/lib/pkg/own"]


def test_an_entry_replaces_what_has_its_name_whatever_it_is(lab: Lab) -> None:
    tar = (
        Tar()
        .folder("usr/lib/alias")  # was a link to a folder
        .add("usr/lib/alias/inside", b"1")
        .add("usr/lib/pkg", b"was a folder")
        .folder("usr/bin/ping")  # was a file
        .add("usr/bin/ping/inside", b"2")
        .symlink("usr/bin/tool", "elsewhere")  # was a file
        .add("usr/bin/sh", b"was a link")
        .symlink("usr/share/doc", "nowhere")  # was a folder
    )
    _, before, after, _ = derived(lab, tar)
    kept = {p: v for p, v in before.items() if not p.startswith(("/usr/lib/pkg", "/usr/share/doc"))}
    assert after == {
        **kept,
        "/usr/lib/alias": "d00755 0:0",
        "/usr/lib/alias/inside": "-00644 0:0 1",
        "/usr/lib/pkg": "-00644 0:0 12",
        "/usr/bin/ping": "d00755 0:0",
        "/usr/bin/ping/inside": "-00644 0:0 1",
        "/usr/bin/tool": "l00777 0:0 0 elsewhere",
        "/usr/bin/sh": "-00644 0:0 10",
        "/usr/share/doc": "l00777 0:0 0 nowhere",
    }


def test_upper_layers_win_and_whiteouts_reach_lower_layers(lab: Lab) -> None:
    one = Tar().add("usr/bin/a", b"1").add("usr/bin/b", b"1").add("etc/c", b"1")
    two = Tar().add("usr/bin/a", b"22").add("usr/bin/.wh.b").add("etc/.wh.c").add("etc/.wh.hosts")
    three = Tar().add("etc/c", b"333")
    _, _, after, _ = derived(lab, one, two, three)
    assert after["/usr/bin/a"].endswith(" 2")
    assert "/usr/bin/b" not in after
    assert after["/usr/etc/c"].endswith(" 3")
    assert "/usr/etc/hosts" not in after


def test_of_a_whiteout_only_the_name_counts(lab: Lab) -> None:
    """Whatever its type, and at the top as well: as container runtimes and `image ls` have it."""
    tar = (
        Tar().folder("usr/bin/.wh.ping").symlink("usr/bin/.wh.sh", "x").add("usr/lib/.wh.pkg", b"x")
    )
    _, before, after, _ = derived(lab, tar)
    assert before.keys() - after.keys() == {
        "/usr/bin/ping",
        "/usr/bin/sh",
        *(path for path in before if path == "/usr/lib/pkg" or path.startswith("/usr/lib/pkg/")),
    }
    assert not [path for path in after if ".wh." in path]


def test_whiteouts_at_the_top_reach_what_a_machine_has_elsewhere(lab: Lab) -> None:
    _, before, after, _ = derived(lab, Tar().add(".wh.etc").add("etc/new", b"new"))
    assert "/usr/etc/hosts" in before
    assert [path for path in after if path.startswith("/usr/etc/")] == ["/usr/etc/new"]
    assert "/usr/bin/tool" in after


def test_an_opaque_root_hides_the_whole_base(lab: Lab) -> None:
    _, _, after, _ = derived(lab, Tar().add(".wh..wh..opq").add("usr/bin/only", b"x"))
    assert set(after) == {"/", "/usr", "/usr/bin", "/usr/bin/only"}


def test_paths_go_where_a_machine_has_them(lab: Lab) -> None:
    events: list[Event] = []
    tar = (
        Tar()
        .folder("etc", mode=0o750)
        .add("/etc/absolute", b"1")
        .add("etc/ünï-" + "x" * 150, b"2")
        .add("var/lib/state", b"3")
        .folder("run", mode=0o700)
        .add("run/secrets/key", b"no")
        .add("run/other", b"no")
        .add("tmp/.wh.x")
        .add("opt/app/bin", b"no")
        .add("root/.bashrc", b"no")
        .add("usr/etcetera", b"4")
    )
    repo = lab.repo()
    lab.derive(tar.bytes())
    result = lab.pull(repo, reporter=Reporter(events.append))
    before, after = listing(lab.origin, lab.commit), listing(repo, result.merge_commit)
    assert {p: v for p, v in after.items() if before.get(p) != v} == {
        "/run": "d00700 0:0",
        "/usr/etc": "d00750 0:0",
        "/usr/etc/absolute": "-00644 0:0 1",
        "/usr/etc/ünï-" + "x" * 150: "-00644 0:0 1",
        "/usr/etcetera": "-00644 0:0 1",
        "/usr/share/factory": "d00755 0:0",
        "/usr/share/factory/var": "d00755 0:0",
        "/usr/share/factory/var/lib": "d00755 0:0",
        "/usr/share/factory/var/lib/state": "-00644 0:0 1",
    }
    warnings = [event.message for event in events if isinstance(event, Warned)]
    for name in ("secrets", "other", "opt", "root"):
        assert any(f"1 entries under {name} " in text for text in warnings)
    fsck(repo)


def test_hard_links_are_the_same_object(lab: Lab) -> None:
    tar = (
        Tar()
        .add("usr/bin/one", b"hello", mode=0o755, owner=(3, 0))
        .link("usr/bin/two", "usr/bin/one")
        .link("usr/bin/three", "./usr/bin/two")  # a chain, which libostree refuses
        .link("usr/bin/four", "/usr/bin/three")
        .add("etc/new", b"etc")
        .link("etc/relative", "etc/new")
        .link("etc/absolute", "/etc/new")
        .link("usr/lib/from-base", "usr/lib/pkg/a")
        .link("usr/lib/etc-from-base", "etc/hosts")
        .symlink("usr/lib/sym", "pkg")
        .link("usr/lib/sym-again", "usr/lib/sym")
    )
    repo, _, after, result = derived(lab, tar)
    tree = Tree.load(repo, result.merge_commit)
    for paths in (
        ("usr/bin/one", "usr/bin/two", "usr/bin/three", "usr/bin/four"),
        ("usr/etc/new", "usr/etc/relative", "usr/etc/absolute"),
        ("usr/lib/pkg/a", "usr/lib/from-base"),
        ("usr/etc/hosts", "usr/lib/etc-from-base"),
        ("usr/lib/sym", "usr/lib/sym-again"),
    ):
        assert len({tree.lookup(path) for path in paths}) == 1
        assert tree.lookup(paths[0])
    assert after["/usr/bin/four"] == "-00755 3:0 5"


def test_links_into_the_images_own_store_become_files(lab: Lab) -> None:
    """What container tools write when a file changes that the base holds as a link to an object."""
    store = "sysroot/ostree/repo/objects/ab/" + "c" * 62 + ".file"
    tar = (
        Tar()
        .add(store, b"hello", mtime=5, mode=0o755)
        .link("usr/bin/one", store, mtime=5)
        .link("usr/bin/two", store, mtime=5)
    )
    repo, before, after, result = derived(lab, tar)
    assert {p for p in after if p not in before} == {"/usr/bin/one", "/usr/bin/two"}
    assert cat(repo, result.merge_commit, "/usr/bin/two") == "hello"


def test_extended_attributes_are_kept_in_order(lab: Lab) -> None:
    pax = {
        "SCHILY.xattr.user.z": "last",
        "SCHILY.xattr.user.empty": "",
        "SCHILY.xattr.security.b": "cap",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    tar = Tar().add("usr/bin/x", b"x", pax=pax)
    tar.add("usr/lib/pkg", kind=tarfile.DIRTYPE, mode=0o755, pax=pax)
    repo, _, _, result = derived(lab, tar)
    tree = Tree.load(repo, result.merge_commit)
    kept = ((b"security.b", b"cap"), (b"user.z", b"last"))
    checksum = tree.lookup("usr/bin/x")
    assert isinstance(checksum, str)
    assert repo.header(checksum).xattrs == kept
    folder = tree.folder("usr/lib/pkg")
    assert folder is not None
    assert folder.meta.xattrs == kept


def test_empty_files_container_tools_mount_over_are_left_out(lab: Lab) -> None:
    tar = Tar().add("etc/hostname", b"").add("etc/resolv.conf", b"").add("etc/hosts", b"")
    _, _, after, _ = derived(lab, tar)
    assert "/usr/etc/hostname" not in after
    assert "/usr/etc/resolv.conf" not in after
    assert after["/usr/etc/hosts"].endswith(" 0")


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (LAYER, bytes),
        (LAYER_GZIP, gzip.compress),
        (LAYER_GZIP, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])),
        (LAYER_ZSTD, zstd),
        (LAYER_ZSTD, lambda data: zstd(data) + b"\x50\x2a\x4d\x18\x04\0\0\0skip"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar", bytes),
    ],
    ids=["tar", "gzip", "gzip members", "zstd", "zstd skippable", "docker gzip", "docker tar"],
)
def test_every_compression_of_a_layer_is_read(
    lab: Lab, media_type: str, pack: Callable[[bytes], bytes]
) -> None:
    body = random.Random(1).randbytes(700_000)  # noqa: S311
    tar = Tar().add("usr/bin/new", body).bytes()
    lab.derive(tar, media_type=media_type, pack=pack)
    repo = lab.repo()
    result = lab.pull(repo)
    checksum = Tree.load(repo, result.merge_commit).lookup("usr/bin/new")
    assert isinstance(checksum, str)
    with repo.open_content(checksum) as stream:
        assert stream.read() == body


@pytest.mark.parametrize(
    ("created", "timestamp"),
    [
        ("2024-01-02T03:04:05Z", 1_704_164_645),
        ("2024-01-02T03:04:05.123456789Z", 1_704_164_645),
        ("2024-01-02T05:04:05.5+02:00", 1_704_164_645),
        ("0001-01-01T00:00:00Z", 0),  # what Go writes for no time
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_the_merge_commits_time_is_the_images(lab: Lab, created: str, timestamp: int) -> None:
    lab.derive(created=created)
    repo = lab.repo()
    result = lab.pull(repo)
    assert repo.commit(result.merge_commit).timestamp == timestamp
    fsck(repo)
