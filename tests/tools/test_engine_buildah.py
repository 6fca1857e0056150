"""The node layer by its Containerfile: the same system as the native engine's."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from conftest import Strata, leftovers
from strata.compose.buildah import context_digest
from strata.core.files import mounts_under
from strata.oci.compression import decompress
from strata.oci.digest import Digest
from strata.oci.layout import Layout
from strata.oci.model import ImageConfig, Manifest
from strata.oci.tar import TarReader

pytestmark = pytest.mark.tools
NODE = "node/4.19@sample-12"


def outputs(store: Path) -> dict[str, object]:
    record = json.loads((store / f"records/{NODE}.json").read_text())
    found: dict[str, object] = record["outputs"]
    return found


def image(store: Path) -> tuple[Manifest, ImageConfig]:
    layout = Layout.open(store)
    digest = Digest.parse(str(outputs(store)["manifest"]))
    manifest = Manifest.parse(layout.read(layout.resolve(digest=digest)))
    return manifest, ImageConfig.parse(layout.read(manifest.config))


def test_r3_1_both_engines_make_the_same_system(
    built_store: Path, own_store: Path, definitions: Path, strata: Strata
) -> None:
    where = ("-C", str(definitions), "--store", str(own_store))
    strata(*where, "build", "node/4.19", "--engine", "buildah")
    one, other = f"oci:{built_store}:{NODE}", f"oci:{own_store}:{NODE}"
    same = strata("image", "diff", "--squashed", "--exit-code", one, other, check=False)
    assert same.returncode == 0, same.stdout
    assert "are the same system" in same.stdout
    native, native_config = image(built_store)
    made, config = image(own_store)
    # The base's layers stay; on top are what the treefile did, and the package list (R3.7).
    below = int(str(outputs(own_store)["base_layers"]))
    assert made.layers[:below] == native.layers[:below]
    assert len(made.layers) == below + 2
    assert config.labels == native_config.labels
    assert config.labels["name"] == "sample/node"  # R3.9
    assert config.labels["io.openshift.os.streamclass"] == "debian-12"  # R3.10
    assert config.config["Cmd"] == native_config.config["Cmd"]
    with Layout.open(own_store).open_blob(made.layers[-1].digest) as stream:
        tar = TarReader(decompress(stream, made.layers[-1].media_type))
        files = [entry for entry in tar if entry.type == "0"]
    assert [entry.path for entry in files] == [b"usr/share/openshift/base/meta.json"]
    assert outputs(own_store)["packages"] == outputs(built_store)["packages"]
    record = json.loads((own_store / f"records/{NODE}.json").read_text())
    assert {"overlay", "treefile", "tool"} <= {
        item["kind"]
        for item in record["inputs"]
        if item["name"] in ("context of the Containerfile", "node/Containerfile", "buildah")
    }
    # Nothing is left of buildah's, and built again it is the same.
    assert not list((own_store / "work").iterdir())
    assert leftovers(own_store) == []
    again = strata(*where, "--json", "build", "node/4.19", "--engine", "buildah", "--verify")
    (result,) = [row for row in json.loads(again.stdout) if row["target"] == NODE]
    assert result["status"] == "up to date"
    assert result["verified"]["equal"]
    assert result["verified"]["actual"] == {"manifest": outputs(own_store)["manifest"]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("apply /run/src ${TREEFILE}", "apply /run/src node/nope.yaml", "nope.yaml"),
        ("strata-apply.pyz metadata", "strata-apply.pyz --help", "does not hold /usr/share"),
        ("FROM ${IMAGE_FROM}", "FROM scratch", "step 8/9 failed: RUN --mount"),
    ],
)
def test_what_a_containerfile_does_wrong_is_said(
    own_store: Path, definitions: Path, strata: Strata, old: str, new: str, said: str
) -> None:
    path = definitions / "node/Containerfile"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    before = outputs(own_store)
    where = ("-C", str(definitions), "--store", str(own_store))
    done = strata(*where, "build", "node/4.19", "--engine", "buildah", check=False)
    assert done.returncode in (3, 11)
    assert said in done.stderr[done.stderr.rindex("strata: ") :]
    assert outputs(own_store) == before
    assert not list((own_store / "work").iterdir())
    assert leftovers(own_store) == []


def test_a_script_that_fails_in_a_container_is_told_as_the_native_engine_does(
    own_store: Path, definitions: Path, strata: Strata
) -> None:
    path = definitions / "node/common.yaml"
    path.write_text(path.read_text().replace("    ldconfig\n", "    echo lost >&2; exit 7\n"))
    where = ("-C", str(definitions), "--store", str(own_store), "build", "node/4.19")
    base = ("--base", f"oci:{own_store}:coreos/sample-12")
    done = strata(*where, *base, "--engine", "buildah", check=False)
    told = done.stderr[done.stderr.rindex("strata: ") :].splitlines()
    native = strata(*where, *base, check=False)
    assert done.returncode == native.returncode == 3
    assert told == native.stderr[native.stderr.rindex("strata: ") :].splitlines()
    assert told[0].startswith("strata: the postprocess script at node/common.yaml:")
    assert told[0].endswith(" failed: lost")
    assert told[-2] == "  | lost"
    command = shlex.join(["strata", *where, *base, "--shell"])
    assert told[-1] == f"  hint: to look around in its sandbox, and run it again there: {command}"
    # What is booted is built first, and fails the same.
    ran = strata(*where[:4], "run", "node/4.19", *base, check=False)
    assert ran.stderr[ran.stderr.rindex("strata: ") :].splitlines() == told
    refused = strata(*where, "--engine", "buildah", "--shell", check=False)
    assert refused.returncode == 2
    assert "--shell is for the native engine" in refused.stderr


def test_what_buildah_cannot_do_is_said(
    own_store: Path, definitions: Path, strata: Strata, tmp_path: Path
) -> None:
    where = ("-C", str(definitions), "--store", str(own_store))
    path = definitions / "strata.toml"
    head, of_420 = path.read_text().split('[release."4.20"')
    path.write_text(
        head + '[release."4.20"' + of_420.replace("containerfile =", "# containerfile =")
    )
    done = strata(*where, "build", "node/4.20", "--engine", "buildah", check=False)
    assert done.returncode == 3
    assert "node/4.20@sample-12 has no Containerfile for --engine buildah" in done.stderr
    swap = f"{definitions}/strata.toml:/usr/bin/x"
    done = strata(*where, "build", "node/4.19", "--engine", "buildah", "--with", swap, check=False)
    assert done.returncode == 2
    assert "swaps files, which a Containerfile does not" in done.stderr
    done = strata(*where, "build", "node/4.19", "--secret", "id=x,src=y", check=False)
    assert done.returncode == 2


def test_what_a_step_reads_of_its_context_is_an_input(definitions: Path) -> None:
    store = definitions / "build/store"
    (store / "blobs").mkdir(parents=True)

    def digest() -> str:
        return context_digest(definitions, store)

    found = [digest()]
    (definitions / "node/extra.conf").write_text("x\n")
    found.append(digest())
    (definitions / "node/extra.conf").chmod(0o755)
    found.append(digest())
    (definitions / "node/link").symlink_to("extra.conf")
    found.append(digest())
    assert len(set(found)) == 4
    # neither the store inside, nor git's own, is read
    (store / "blobs/x").write_text("x")
    (definitions / ".git").mkdir()
    (definitions / ".git/HEAD").write_text("x")
    assert digest() == found[-1]


def test_a_context_for_a_ci_has_the_locked_packages_and_the_tool(
    own_store: Path, definitions: Path, strata: Strata, tmp_path: Path
) -> None:
    where = ("-C", str(definitions), "--store", str(own_store))
    folder = tmp_path / "ci"
    told = strata(*where, "build", "node/4.19", "--context", str(folder)).stdout
    assert f"  --build-arg IMAGE_FROM=oci:{own_store}:coreos/sample-12\n" in told
    assert "  --build-arg TREEFILE=node/manifest.yaml\n" in told
    lock = json.loads((own_store / f"locks/{NODE}.lock").read_text())
    locked = {item["nevra"] for item in lock["targets"][NODE]["x86_64"]["packages"]}
    assert {path.name.removesuffix(".rpm") for path in (folder / "packages").iterdir()} == locked
    assert (folder / "strata-apply.pyz").stat().st_mode & 0o111
    # what docs/builds.md says then
    arguments = [word for line in told.splitlines()[1:] for word in line.split(maxsplit=1)]
    stored = tmp_path / "storage"
    buildah = ["buildah", "--storage-driver=overlay", f"--root={stored}/g", f"--runroot={stored}/r"]
    command = [*buildah, "build", "--isolation=chroot", "--layers", "--no-hosts", "--dns", "none"]
    command += ["--build-context", f"strata={folder}", *arguments, "-f", "node/Containerfile", "."]
    try:
        done = subprocess.run(command, cwd=definitions, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "done in" in done.stderr  # of strata-apply
    finally:
        for mount in mounts_under(stored):
            subprocess.run(["umount", mount], check=True)
    swap = ("--with", f"{definitions}/strata.toml:/usr/bin/x")
    other = ("build", "node/4.19", "--context", str(tmp_path / "two"))
    refused = strata(*where, *other, *swap, check=False)
    assert refused.returncode == 2
    assert "swaps files" in refused.stderr
    again = strata(*where, "build", "node/4.19", "--context", str(folder), check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr
