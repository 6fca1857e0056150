"""What a node image says of itself, and what its packages may not say (requirements R3.9, R3.10,
R3.15).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from strata.core import rooted
from strata.core.clock import rfc3339
from strata.core.errors import DefinitionError, PackageError
from strata.core.files import pretty_json
from strata.rpm.nevra import NEVRA
from strata.treefile.conditions import Variable

LABELS_PATH = "usr/share/buildinfo/labels.json"
STREAM_CLASS_LABEL = "io.openshift.os.streamclass"
CREATED = "org.opencontainers.image.created"
NAME, CPE = "IMAGE_NAME", "IMAGE_CPE"
_RELEASE = re.compile(r"rhaos(\d+\.\d+)")


def stream_class(variables: Mapping[str, Variable]) -> str:
    """The major of the OS a node image stands on, as `rhel-9`: what machines choose an image by.

    variables: what its treefile's conditions may ask.
    """
    return str(variables["osversion"]).partition(".")[0]


def product_labels(
    arguments: Mapping[str, str], identity: str, architecture: str, epoch: int
) -> dict[str, str]:
    """What scanners find an image by: its name, CPE, architecture and time; none where the product
    is not one (requirement R3.9).

    arguments: IMAGE_NAME and IMAGE_CPE of the build arguments. identity: os-release's ID.
    Raises DefinitionError when one of the two is missing, or both are on RHEL.
    """
    found = {key: arguments[key] for key in (NAME, CPE) if arguments.get(key)}
    if not found and identity != "rhel":
        return {}
    missing = [key for key in (NAME, CPE) if key not in found]
    if missing:
        raise DefinitionError(
            f"the build arguments lack {' and '.join(missing)}",
            hint="scanners find the image by them; give them in the build-args file of the "
            "node's containerfile in strata.toml",
        )
    return {
        "architecture": architecture,
        "cpe": found[CPE],
        "name": found[NAME],
        CREATED: rfc3339(epoch),
    }


def write_labels(root: Path, labels: Mapping[str, str]) -> None:
    """Put the labels where a tree keeps them, too; nothing when there are none."""
    if labels:
        target = rooted.resolve(root, LABELS_PATH)
        target.parent.mkdir(parents=True, exist_ok=True)
        rooted.write_text(root, LABELS_PATH, pretty_json(dict(labels)).decode())


def check_release(packages: Iterable[NEVRA], version: str, exceptions: Sequence[str]) -> None:
    """Packages built for a release of the product are of this one (requirement R3.15).

    version: of the product, empty when the treefile does not say. exceptions: names of packages
    that are taken from another release on purpose. Raises PackageError.
    """
    wrong = []
    for nevra in packages:
        match = _RELEASE.search(nevra.release)
        if match and version and match[1] != version and nevra.name not in exceptions:
            wrong.append(f"{nevra} is of {match[1]}")
    if wrong:
        raise PackageError(
            f"the node layer is of {version}: {', '.join(wrong)}",
            hint="take them from this release's repositories, or name them in other-releases of "
            "the node's table in strata.toml",
        )
