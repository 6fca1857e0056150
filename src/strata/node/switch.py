"""Switch: the node image that was pulled becomes the next boot's deployment, as on a cluster's
other nodes; and back.

`ostree admin deploy` does it: /etc is merged once more, kernel arguments are kept, the booted
deployment stays as the one to go back to. The origin names the image as ostree-ext and bootc write
it, so that they can go on from there. It may be called before or after an overlay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from strata.core.errors import StrataError, ToolMissingError
from strata.core.events import Reporter
from strata.core.files import scratch_dir
from strata.core.process import require_root, run
from strata.node import host, mounts
from strata.node.host import State
from strata.node.phases import agent_lock
from strata.ostree.libostree import Deployed, deployments, make_default
from strata.ostree.repo import Repo
from strata.ostree.tree import Tree


@dataclass(frozen=True)
class Switched:
    """What boots next, and the kernel it boots with (empty when that is not known)."""

    deployment: Deployed
    kernel: str


def switch(reporter: Reporter) -> Switched:
    """Have the pulled image boot next. Does nothing when it already does.

    Raises NotRootError, StrataError, ToolFailedError; the boot order is then as it was.
    """
    with _may_write("switching to the node image", reporter):
        state = State.load()
        if not state.merge_commit:
            raise StrataError(
                "there is no pulled node image to switch to", hint="run strata-node pull first"
            )
        found = deployments(host.ROOT)
        if not found:
            raise StrataError(f"{host.ROOT} has no deployment to take /etc and kargs from")
        if found[0].commit == state.merge_commit:
            reporter.note("the node image boots next already")
        else:
            before = next((row for row in found if row.is_booted), found[0])
            with reporter.step("deploy the node image for the next boot"):
                _deploy(state, before.stateroot)
        done = Switched(deployments(host.ROOT)[0], _kernel(state.merge_commit))
        running = host.running_kernel()
        if done.kernel and done.kernel != running:
            reporter.note(f"kernel {done.kernel} takes effect with the next boot; {running} runs")
        return done


def roll_back(reporter: Reporter) -> Switched:
    """Have the booted deployment boot next; when it already does, the one after it.

    Raises NotRootError, StrataError, ToolFailedError.
    """
    with _may_write("choosing what boots next", reporter):
        found = deployments(host.ROOT)
        if len(found) < 2:
            raise StrataError(
                "there is no other deployment to go back to",
                hint="ostree admin status lists what is there",
            )
        booted = next((row for row in found if row.is_booted), found[0])
        chosen = booted if booted != found[0] else found[1]
        with reporter.step(f"have {chosen.commit[:12]} boot next"):
            make_default(host.ROOT, chosen)
        return Switched(deployments(host.ROOT)[0], _kernel(chosen.commit))


def origin_file(origin: str) -> bytes:
    """A deployment's origin. Source: ostree-ext's container/deploy.rs."""
    return f"[origin]\ncontainer-image-reference={origin}\n".encode()


def _deploy(state: State, stateroot: str) -> None:
    with scratch_dir(host.STATE.parent, "origin") as folder:
        path = folder / "origin"
        path.write_bytes(origin_file(state.origin))
        run(
            [
                *("ostree", "admin", "deploy", f"--sysroot={host.ROOT}", f"--os={stateroot}"),
                *(f"--origin-file={path}", state.merge_commit),
            ],
            error=_no_bwrap,
        )


def _no_bwrap(output: str) -> StrataError | None:
    """Where an image has an SELinux policy, libostree runs semodule in it, by bwrap."""
    if "bwrap" not in output or "No such file" not in output:
        return None
    return ToolMissingError(
        "bwrap is not installed, in which ostree runs the image's SELinux tools",
        hint="add bubblewrap to the CoreOS layer",
        context={"output": output},
    )


def _kernel(commit: str) -> str:
    modules = Tree.load(Repo.open(host.REPO), commit).folder("usr/lib/modules")
    names = sorted(modules.dirs) if modules else []
    return names[-1] if names else ""


@contextmanager
def _may_write(what: str, reporter: Reporter) -> Iterator[None]:
    """Be the only agent, as root, on a machine with a disk that can be written."""
    require_root(what)
    host.require_booted()
    if host.is_live():
        raise StrataError(
            "a live system has no next boot of its own", hint="install it to a disk first"
        )
    mounts.join_machine()
    with agent_lock(reporter):
        mounts.private_namespace()
        for point in (host.SYSROOT, host.BOOT):
            if mounts.is_read_only(str(point)):
                mounts.make_writable(str(point))
        yield
