"""os-release of a built tree: the version takes the place of the OS's own (requirement R2.2).

In VERSION and PRETTY_NAME the `mutate-os-release` token is replaced by the build's version, and
OSTREE_VERSION and IMAGE_VERSION are set. A layer below may have put its own version there: that is
replaced as well, so an image never carries another image's version. Everything else stays as it is
written, in its order; comments and blank lines go. The token is replaced where it stands as a whole
word: "12" is not found in "2012". A node layer adds the product's version and nothing else
(requirement R2.4).
"""

from __future__ import annotations

import re
from pathlib import Path

from strata.core import rooted
from strata.core.errors import DefinitionError
from strata.inspect.osrelease import PATH, PRODUCT, node_changes, parse, read_raw
from strata.treefile.treefile import Flattened


def read(root: Path, whose: str) -> str:
    """The os-release of a tree. whose: the tree's name. Raises DefinitionError, TreeError."""
    try:
        return rooted.read_text(root, PATH)
    except FileNotFoundError:
        raise DefinitionError(
            f"the tree of {whose} has no /{PATH}",
            hint="add the package that brings it to the treefile",
        ) from None


def mutate(text: str, token: str, version: str) -> str:
    """The os-release of a build. version: the build's.

    token: what `mutate-os-release` names, or empty. Without one, and without the version of a layer
    below (OSTREE_VERSION), the text stays as it is: the OS's own.
    """
    below = parse(text).get("OSTREE_VERSION")
    words = [re.escape(word) for word in (below, token) if word]
    if not words:
        return text
    # The longer word first: the token may be the beginning of the version below.
    word = re.compile(rf"(?<![\w.])(?:{'|'.join(words)})(?![\w.])")
    values = read_raw(text)
    for key in ("VERSION", "PRETTY_NAME"):
        if key in values:
            values[key] = word.sub(version, values[key])
    for key in ("OSTREE_VERSION", "IMAGE_VERSION"):
        values[key] = f"'{version}'"
    return "".join(f"{key}={value}\n" for key, value in values.items())


def check_node(before: str, after: str, treefile: Flattened) -> None:
    """Hold a node layer's os-release (after) against its base's (before).

    It may add OPENSHIFT_VERSION alone, equal to the treefile's `ocp_version` where that is given
    (requirement R1.10). Raises DefinitionError naming the key, and the scripts that write there.
    """
    node = parse(after)
    scripts = [str(of.source) for of in treefile.postprocess if "os-release" in of.text]
    blame = f"os-release is written by the scripts at {', '.join(scripts)}" if scripts else None
    changes = node_changes(parse(before), node)
    if changes:
        raise DefinitionError(
            f"the node layer changes the base's os-release: {'; '.join(changes)}",
            hint=f"a node layer adds {PRODUCT} and nothing else" + (f"; {blame}" if blame else ""),
            context={"file": "os-release"},
        )
    wanted = treefile.metadata.get("ocp_version")
    if wanted is not None and node.get(PRODUCT) != str(wanted):
        found = f"is {node[PRODUCT]}" if PRODUCT in node else "is missing"
        raise DefinitionError(
            f"{PRODUCT} in os-release {found}, and the treefile's ocp_version is {wanted}",
            hint=blame or f'write it in a postprocess script: {PRODUCT}="{wanted}"',
            context={"file": "os-release", "key": PRODUCT},
        )
