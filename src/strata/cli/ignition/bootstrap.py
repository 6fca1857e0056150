"""`strata ignition bootstrap`: the config that brings the node layer to a machine."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from strata.bootimage.ignition.bootstrap import Bootstrap, bootstrap_config
from strata.bootimage.ignition.merge import merge_into
from strata.bootimage.ignition.network import AUTH, POLICY, Mirror, Network
from strata.bootimage.ignition.resource import encode, parse_json
from strata.cli.context import Context, add_command
from strata.cli.ignition.common import read_file
from strata.core.errors import UsageError
from strata.core.files import atomic_write
from strata.machine.installer import agent_file, installation_files
from strata.node.config import RELEASE_TAG, NodeConfig
from strata.node.units import AGENT, LIVE_SIZE, MARKER, Installation
from strata.oci.policy import accepts_anything
from strata.oci.reference import SignedReference

IN_IMAGE, EMBEDDED = "in-image", "embedded"
# Where an image that brings the agent has it.
AGENT_IN_IMAGE = "/usr/bin/strata-node.pyz"

DESCRIPTION = """\
Write the Ignition config of a machine that boots the CoreOS image and gets its
node layer without a reboot: the agent, its units, what it is told, and how it
reaches the registry. Made without any network.

  strata ignition bootstrap --image registry.example/node@sha256:… -o node.ign
  strata ignition bootstrap --release registry.example/release@sha256:… \\
      --mirror registry.example=mirror.lab:5000 --auth pull-secret.json \\
      --ca lab-ca.pem --merge-into bootstrap.ign -o bootstrap.ign
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "bootstrap",
        run,
        summary="bring the node layer to a machine",
        description=DESCRIPTION,
    )
    add = parser.add_argument
    which = parser.add_argument_group("which image (one of them)").add_mutually_exclusive_group(
        required=True
    )
    which.add_argument("--image", metavar="PULLSPEC", help="the node image, by digest")
    which.add_argument(
        "--release", metavar="PAYLOAD", help="a release payload, by digest, that names the image"
    )
    which.add_argument(
        "--late", metavar="FILE", help="file on the machine that another unit writes a pullspec to"
    )
    add(
        "--release-tag",
        default=RELEASE_TAG,
        metavar="TAG",
        help=f"the image's tag in the release (default: {RELEASE_TAG})",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="SRC=DST",
        help="look for images of SRC at DST first; http://… without TLS (repeatable)",
    )
    network.add_argument("--auth", metavar="FILE", help="the registries' credentials")
    network.add_argument(
        "--ca", action="append", default=[], metavar="FILE", help="a CA to trust (repeatable)"
    )
    network.add_argument("--proxy", default="", metavar="URL", help="for HTTP and HTTPS")
    network.add_argument("--no-proxy", default="", metavar="HOSTS", help="reached without it")
    network.add_argument(
        "--policy", metavar="FILE", help="signature policy that the image is held against"
    )
    agent = parser.add_argument_group("agent")
    agent.add_argument(
        "--agent",
        choices=(IN_IMAGE, EMBEDDED),
        default=EMBEDDED,
        help=f"inside this config (default), or in the boot image as {AGENT_IN_IMAGE}",
    )
    agent.add_argument(
        "--assisted",
        action="store_true",
        help="something else starts node-image-overlay.service, and nothing is isolated",
    )
    agent.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="SERVICE",
        help="never stopped or restarted (repeatable)",
    )
    agent.add_argument(
        "--probe", default="", metavar="CMD", help="says by its exit status whether it worked"
    )
    agent.add_argument(
        "--marker",
        default=MARKER,
        help=f"the package whose absence calls for the overlay (default: {MARKER})",
    )
    agent.add_argument(
        "--live-size",
        default=LIVE_SIZE,
        metavar="SIZE",
        help="most memory a live system's copy may take, like 5G (default: half of it)",
    )
    agent.add_argument("--arch", default="", help="the machine's, as uname names it")
    add("--ssh-key", action="append", default=[], metavar="KEY", help="for core (repeatable)")
    add("--merge-into", metavar="FILE", help="an installer's config, which then merges this one")
    add("-o", "--output", metavar="FILE", help="where to write it (default: standard output)")


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Read the files, make the config, write it."""
    context.no_dry_run("ignition bootstrap")
    how = Installation(
        AGENT if arguments.agent == EMBEDDED else AGENT_IN_IMAGE,
        arguments.marker,
        arguments.live_size,
        arguments.arch,
        arguments.assisted,
    )
    agent = agent_file() if arguments.agent == EMBEDDED else None
    wanted = Bootstrap(
        _node_config(arguments).to_json(),
        installation_files(how),
        agent,
        _network(arguments),
        arguments.ssh_key,
    )
    config = bootstrap_config(wanted)
    whole = config
    size = f"the config has {len(config) / 1e3:.0f} kB"
    if agent:
        size += f", {len(encode(agent.data)['source']) / 1e3:.0f} kB of them the agent"
    context.reporter.note(size)
    if arguments.merge_into:
        parent = read_file(arguments.merge_into, "--merge-into")
        whole = merge_into(parent, config, arguments.merge_into)
        context.reporter.note(
            f"{arguments.merge_into} merges it, {len(whole) / 1e3:.0f} kB in all; "
            "where both have a unit, a file or a user, the merged one counts"
        )
    if arguments.output:
        atomic_write(Path(arguments.output), whole, 0o600)
    else:
        sys.stdout.write(whole.decode() + "\n")
    return 0


def _node_config(arguments: argparse.Namespace) -> NodeConfig:
    return NodeConfig(
        image=_pinned("--image", arguments.image),
        release=_pinned("--release", arguments.release),
        release_tag=arguments.release_tag,
        late=_late(arguments.late),
        auth=Path(AUTH) if arguments.auth else None,
        policy=Path(POLICY) if arguments.policy else None,
        keep=tuple(arguments.keep),
        probe=_words("--probe", arguments.probe),
    )


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a command: {error}") from error


def _pinned(option: str, text: str | None) -> SignedReference | None:
    if text is None:
        return None
    reference = SignedReference.parse_pullspec(text)
    if reference.image.digest is None and reference.image.transport == "docker":
        raise UsageError(
            f"{option} {text} is not by digest: a tag may mean another image by then",
            hint=f"skopeo inspect --format '{{{{.Digest}}}}' {reference.image}",
        )
    return reference


def _late(text: str | None) -> Path | None:
    if text is not None and not Path(text).is_absolute():
        raise UsageError(f"--late {text} is not an absolute path on the machine")
    return Path(text) if text else None


def _network(arguments: argparse.Namespace) -> Network:
    policy = read_file(arguments.policy, "--policy") if arguments.policy else b""
    if policy and accepts_anything(policy, arguments.policy):
        raise UsageError(
            f"{arguments.policy} accepts everything", hint="give it a default of reject"
        )
    return Network(
        tuple(Mirror.parse(text) for text in arguments.mirror),
        _auth(arguments.auth) if arguments.auth else b"",
        policy,
        _certificates(arguments.ca),
        arguments.proxy,
        arguments.no_proxy,
    )


def _certificates(names: list[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        if Path(name).name in found:
            raise UsageError(
                f"--ca {name}: there is another {Path(name).name}",
                hint="they come into one folder of the machine: rename one",
            )
        found[Path(name).name] = read_file(name, "--ca")
    return found


def _auth(name: str) -> bytes:
    data = read_file(name, "--auth")
    if not isinstance(parse_json(data, name).get("auths"), dict):
        raise UsageError(
            f"--auth {name} has no credentials: there is no auths in it",
            hint="give the file that skopeo login or podman login writes",
        )
    return data
