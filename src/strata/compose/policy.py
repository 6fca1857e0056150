"""SELinux labels of a base tree, by the policy that is in it and what the treefile says.

| `selinux` | the tree has a policy | it has none  |
|-----------|-----------------------|--------------|
| `true`    | labelled              | an error     |
| left out  | labelled              | not labelled |
| `false`   | not labelled          | not labelled |

rpm-ostree's default is `true`. Source: its rpmostree-postprocess.cxx and postprocess_subs_dist.
"""

from __future__ import annotations

from pathlib import Path

from strata.container.selinux import Labeller, policy_of, relabel
from strata.core import rooted
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree
from strata.ostree.writer import Writer
from strata.treefile.treefile import Flattened
from strata.treefile.yaml import definition_error

_ALIASES = "contexts/files/file_contexts.subs_dist"


def label(repo: Repo, writer: Writer, tree: Tree, treefile: Flattened) -> int:
    """Label a scanned tree; returns how many files were written anew for it.

    Raises DefinitionError when the treefile asks for labels that no policy has, ImageError when the
    policy cannot be read, ToolMissingError when libselinux is not there.
    """
    wanted = treefile.fields.get("selinux")
    if wanted is False:
        return 0
    writer.publish()  # the policy, and what is labelled, are read out of the repository
    with policy_of(repo, tree) as labels:
        if labels is not None:
            as_etc = treefile.fields.get("selinux-label-version") == 1
            return relabel(repo, writer, tree, _AsEtc(labels) if as_etc else labels)
    if wanted is True:
        raise definition_error(
            treefile.places["selinux"],
            "selinux is true, but the tree has no SELinux policy",
            "add the package of a policy, or leave selinux out",
            key="selinux",
        )
    return 0


class _AsEtc:
    """`selinux-label-version: 1`: /usr/etc has the labels of /etc, which it may become."""

    def __init__(self, labels: Labeller) -> None:
        self._labels = labels

    def of(self, path: str, mode: int) -> bytes | None:
        """See Labeller."""
        return self._labels.of(path.removeprefix("/usr") if _is_etc(path) else path, mode)


def _is_etc(path: str) -> bool:
    return path == "/usr/etc" or path.startswith("/usr/etc/")


def settle_aliases(root: Path) -> None:
    """Let each policy of an installed root know that /home is /var/home, /usr/etc is /etc and
    /usr/lib/opt is /opt."""
    for policy in rooted.children(root, "etc/selinux"):
        path = f"etc/selinux/{policy.name}/{_ALIASES}"
        if policy.is_dir() and rooted.resolve(root, path).is_file():
            rooted.write_text(root, path, with_aliases(rooted.read_text(root, path)))


def with_aliases(text: str) -> str:
    """file_contexts.subs_dist with what an OSTree tree needs, each once."""
    # The other way round, a policy of a mutable system, the two would go in a circle.
    lines = [f"# {line}" if line.startswith("/var/home ") else line for line in text.splitlines()]
    wanted = ["/home /var/home", "/usr/etc /etc", "/usr/lib/opt /opt"]
    wanted += [f"/usr{line}" for line in lines if line.startswith("/etc/")]
    known = {line.split()[0] for line in lines if line.strip()}
    lines += [line for line in wanted if line not in lines and line.split()[0] not in known]
    return "".join(f"{line}\n" for line in lines)
