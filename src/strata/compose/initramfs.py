"""The initramfs: made once, in the CoreOS layer, by the tree's own dracut inside the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strata.compose.sandbox import run_in_tree
from strata.core.errors import DefinitionError
from strata.core.rooted import resolve


def build_initramfs(
    root: Path, kernel: str, *, source_date_epoch: int, arguments: Sequence[str] = ()
) -> int:
    """Write `/usr/lib/modules/KERNEL/initramfs.img` from the tree's dracut configuration.

    arguments: the treefile's `initramfs-args`, in the place of `--no-hostonly`.

    The result is the same for the same tree (`--reproducible`, SOURCE_DATE_EPOCH). Returns its
    size in bytes. Raises DefinitionError when the tree has no dracut, ToolFailedError.
    """
    if not resolve(root, "usr/bin/dracut").exists():
        raise DefinitionError(
            "the tree has no dracut, so no initramfs can be made",
            hint="add dracut to the packages of the CoreOS treefile",
        )
    image = f"/usr/lib/modules/{kernel}/initramfs.img"
    env = {"SOURCE_DATE_EPOCH": str(source_date_epoch), "DRACUT_NO_XATTR": "1"}
    run_in_tree(root, ["depmod", "-a", kernel], env=env)
    argv = ["dracut", "--force", *(arguments or ("--no-hostonly",)), "--reproducible"]
    argv += ["--kver", kernel]
    run_in_tree(root, [*argv, "--tmpdir", "/tmp", image], env=env)
    path = resolve(root, image)
    path.chmod(0o600)
    return path.stat().st_size
