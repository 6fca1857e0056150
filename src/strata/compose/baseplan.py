"""What a treefile decides about a base layer beside its packages, files and scripts: who is there
before, its shape, its version, and what its commit and its image say. All known before it is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strata.compose.accounts import (
    Accounts,
    accounts_before,
    join_accounts,
    read_accounts,
    seed_accounts,
    settle_rpmnew,
    split_accounts,
)
from strata.compose.commitmeta import Said, ref_of, said_by
from strata.compose.commitsign import SIGNATURES, signature_of, signing_key
from strata.compose.context import BuildContext
from strata.compose.definitions import Definition
from strata.compose.initramfs import build_initramfs
from strata.compose.labels import COMMAND
from strata.compose.policy import label, settle_aliases
from strata.compose.repometa import with_repositories
from strata.compose.revision import revision_inputs, revision_labels
from strata.compose.rpmformat import check_database
from strata.compose.treelayout import settle_boot
from strata.compose.users import check_users
from strata.core.clock import date8
from strata.core.errors import DefinitionError
from strata.core.events import Reporter
from strata.core.record import BuildRecord, Input
from strata.core.versions import next_version
from strata.ostree.gvariant import Variant, pack_variant_map
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree, scan
from strata.ostree.writer import Writer, writing
from strata.rpm.lock import Lock
from strata.treefile.autoversion import next_automatic
from strata.treefile.layout import Layout, layout_of
from strata.treefile.target import Target
from strata.treefile.treefile import Flattened


@dataclass(frozen=True)
class BasePlan:
    """A base layer's treefile, understood. folder: the definitions.

    accounts: who is there before packages come; last: who was in the last build. layout: the tree's
    shape. said: the commit's metadata. ref: one more for it, empty for none. signer: whose
    signature it gets, empty for none. labels: of the image, its revision. notices: what is said of
    the repositories, as inputs.
    """

    treefile: Flattened
    folder: Path
    accounts: Accounts
    last: Accounts
    layout: Layout
    said: Said
    ref: str
    signer: str
    labels: Mapping[str, str]
    notices: tuple[Input, ...]

    def inputs(self) -> tuple[Input, ...]:
        """What of it is in no treefile."""
        signer = [Input("definition", "gpg-key", self.signer)] if self.signer else []
        labels = revision_inputs(self.labels)
        return (*self.accounts.inputs(), *labels, *signer, *self.notices)

    @property
    def command(self) -> tuple[str, ...]:
        """What the image runs."""
        return self.treefile.texts("container-cmd") or COMMAND

    def before_packages(self, root: Path) -> None:
        """Have those in the root who were there before. Raises DefinitionError."""
        join_accounts(root)
        seed_accounts(root, self.accounts)

    def before_scripts(self, root: Path) -> None:
        """See that packages left the tree as the treefile has it. Raises DefinitionError."""
        settle_rpmnew(root)
        check_database(root, self.treefile)

    def after_scripts(self, root: Path) -> Accounts:
        """Hold the users against the lists and put them where they belong; returns all of them.

        Raises DefinitionError.
        """
        found = read_accounts(root)
        check_users(root, self.treefile, self.folder, self.last.to_json())
        split_accounts(root, self.treefile.texts("etc-group-members"))
        settle_aliases(root)
        return found

    def initramfs(self, root: Path, kernel: str, epoch: int, reporter: Reporter) -> None:
        """Build it, unless the treefile has none. Raises DefinitionError, ToolFailedError."""
        if self.treefile.fields.get("no-initramfs") is not True:
            arguments = self.treefile.texts("initramfs-args")
            with reporter.step("build the initramfs") as step:
                size = build_initramfs(root, kernel, source_date_epoch=epoch, arguments=arguments)
                step.progress(size, size)
                step.detail(f"{size / 1e6:.0f} MB")

    def settle_boot(self, root: Path, kernel: str) -> None:
        """Put the kernel where boot-location has it, too."""
        settle_boot(root, kernel, self.layout)

    def commit(
        self,
        repo: Repo,
        root: Path,
        ref: str,
        *,
        metadata: Mapping[str, Variant],
        subject: str,
        epoch: int,
        threads: int,
    ) -> Checksum:
        """Commit a tree, labelled, signed and under its refs. Raises DefinitionError, ObjectError,
        ImageError, ToolFailedError."""
        with writing(repo) as writer:
            tree = scan(writer, str(root), adopt=True, threads=threads)
            label(repo, writer, tree, self.treefile)
            commit = commit_tree(
                writer,
                tree,
                timestamp=epoch,
                subject=subject,
                metadata={**self.said.inline, **metadata},
            )
            self._detached(repo, writer, commit)
            for name in filter(None, (ref, self.ref)):
                writer.set_ref(name, commit)
        return commit

    def _detached(self, repo: Repo, writer: Writer, commit: Checksum) -> None:
        detached = dict(self.said.detached)
        if self.signer:
            writer.publish()
            detached[SIGNATURES] = signature_of(repo, commit, self.signer)
        if detached:
            writer.detached_metadata(commit, pack_variant_map(detached))


def plan_base(
    context: BuildContext,
    target: Target,
    definition: Definition,
    lock: Lock,
    inputs: Sequence[Input],
    more: Sequence[Path] = (),
) -> BasePlan:
    """Understand a base layer's treefile.

    inputs: all others of the build. more: files that it is made of beside the definition's.
    Raises DefinitionError, RepositoryError.
    """
    treefile, earlier = definition.treefile, context.record(target)
    name = treefile.text("gpg-key")
    paths = (*definition.paths(), *more)
    said, notices = with_repositories(said_by(treefile), context, definition, lock)
    plan = BasePlan(
        treefile,
        definition.folder,
        Accounts(),
        Accounts.from_record(earlier, "accounts"),
        layout_of(treefile.fields),
        said,
        ref_of(treefile),
        signing_key(name, treefile.places["gpg-key"]) if name else "",
        revision_labels(context.project, paths[0].parent, paths),
        notices,
    )
    others = [*inputs, *plan.inputs()]
    accounts = accounts_before(treefile, definition.folder, earlier, others)
    return replace(plan, accounts=accounts)


def version_of(
    stream: str, treefile: Flattened, epoch: int, earlier: BuildRecord | None, *, dev: bool
) -> str:
    """The version of a new build: the day of the content, counted on from the earlier build; or
    rpm-ostree's scheme, where the stream has no version.

    dev: it is a developer's. Raises DefinitionError when neither is there.
    """
    before = str(earlier.outputs["version"]) if earlier else ""
    if stream:
        return str(next_version(stream, date8(epoch), before, dev=dev))
    prefix = treefile.text("automatic-version-prefix")
    if not prefix:
        raise DefinitionError(
            "the layer has no version: its stream has none in strata.toml, and its treefile no "
            "automatic-version-prefix",
            hint='say version = "X.Y" in the stream\'s table',
        )
    suffix = treefile.text("automatic-version-suffix", ".")
    return next_automatic(prefix, epoch, before, suffix) + (".dev" if dev else "")
