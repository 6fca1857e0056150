"""Import: a container image becomes OSTree commits in a repository.

The layers up to `ostree.final-diffid` are the base (`importbase`). What comes after are derived
layers (`derived`); laid over the base they make the *merge commit*. An image without that label has
derived layers only. Layers are read and written at once, in threads, streaming: none is stored
first, and none that is there already is fetched (`importplan`). What an image claims of its layers
is never enough (see `refs`).

Interrupted at any point, the next run goes on (`layerreads`).
Source: ostree-ext's container/store.rs.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Sequence
from dataclasses import replace

from strata.container import derived, labels, selinux
from strata.container.importbase import BaseImport, verify_stored
from strata.container.importplan import ImportResult, LayerImport, stored_result
from strata.container.layerreads import Counting, ImageLayer, LayerReads
from strata.container.refs import image_ref
from strata.container.stored import (
    DERIVED,
    IMAGE_CONFIG,
    MANIFEST,
    MANIFEST_DIGEST,
    base_layer_count,
    forget_unneeded,
)
from strata.core.clock import parse_rfc3339
from strata.core.errors import SignatureError
from strata.core.events import Reporter
from strata.core.files import canonical_json
from strata.oci.reference import ImageReference
from strata.oci.source import ImageSource
from strata.oci.tar import TarReader
from strata.ostree.gvariant import Variant
from strata.ostree.objects import Checksum
from strata.ostree.repo import Repo
from strata.ostree.scan import commit_tree
from strata.ostree.tree import Tree
from strata.ostree.writer import writing

_IMPLIED = "strata.implied-folders"
_RULES = "strata.rules"
_PREPARE_ROOT = ("usr/etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf")


def import_image(
    source: ImageSource,
    repo: Repo,
    *,
    reference: ImageReference,
    threads: int = 2,
    keep_var: bool = False,
    signed_by: str = "",
    without: str = "",
    reporter: Reporter,
) -> ImportResult:
    """Import an open image under a reference; layers no image needs any more are let go.

    keep_var: see `derived.Rules`. signed_by: the repository's remote whose keys have to have signed
    the base commit; layers above it are not signed so. without: a folder whose files are not
    stored: the commits name them all the same, and the base's stays marked partial. Raises
    ImageError, DigestError, SignatureError, TransportError, ObjectError, NoSpaceError,
    ToolMissingError.
    """
    if signed_by and not base_layer_count(source.manifest, source.config):
        raise SignatureError(
            f"the image has no commit that the remote {signed_by} could have signed",
            hint="only images that encapsulate a commit can be held against a remote's keys",
        )
    there = stored_result(source, repo, reference)
    if there is not None:
        if signed_by:
            verify_stored(repo, signed_by, there.base_commit)
        forget_unneeded(repo)
        return there
    with writing(repo) as writer:
        reads = LayerReads(source, repo, writer, threads, reporter)
        rules = derived.Rules(keep_var=keep_var, without=without)
        result = _Import(reads, reference, rules, signed_by).run()
    forget_unneeded(repo)
    return result


class _Import:
    def __init__(
        self,
        reads: LayerReads,
        reference: ImageReference,
        rules: derived.Rules,
        signed_by: str,
    ) -> None:
        self.reads, self.reference, self.rules, self.signed_by = reads, reference, rules, signed_by
        self.source, self.repo = reads.source, reads.repo
        self.writer, self.reporter = reads.writer, reads.reporter

    def run(self) -> ImportResult:
        manifest, config = self.source.manifest, self.source.config
        count = base_layer_count(manifest, config)
        layers = list(zip(manifest.layers, config.diff_ids))
        base, tree = Checksum(""), Tree()
        base_layers: list[LayerImport] = []
        if count:
            reading = BaseImport(self.reads, self.rules, self.signed_by)
            base_layers, tree = reading.run(layers[:count])
            base = Checksum(base_layers[0].commit)
        rest = layers[count:]
        other_tops = not count or _keeps_other_tops(self.repo, tree)
        rules = replace(self.rules, other_tops=other_tops)
        with self.reads.step("import derived layers", rest) as step:
            done = self.reads.parallel(
                lambda item: self._import_derived(item, tree, rules, step), rest
            )
        with self.reporter.step("lay the layers over the base") as merging:
            merged = self._merge(base, tree, done)
            merging.detail(merged[:12])
        return ImportResult(base, merged, self.source.manifest_digest, (*base_layers, *done))

    # --- derived layers --------------------------------------------------------------------

    def _import_derived(
        self, item: ImageLayer, base: Tree, rules: derived.Rules, step: Counting
    ) -> LayerImport:
        known = self.reads.known(DERIVED, item, lambda commit: self._may_reuse(commit, rules), step)
        if known is not None:
            return known
        found: list[derived.LayerTree] = []

        def use(tar: TarReader) -> None:
            found.append(derived.read_layer(self.writer, tar, base, rules))

        self.reads.read(item, step, use)
        metadata = {
            _IMPLIED: Variant.text(json.dumps(sorted(found[0].implied))),
            _RULES: Variant.text(_rules_text(rules)),
        }
        commit = commit_tree(self.writer, found[0].tree, timestamp=0, metadata=metadata)
        done = self.reads.finish(DERIVED, item, commit)
        for name, count in sorted(found[0].dropped.items()):
            self.reporter.warn(
                f"the image has {count} entries under {name} that a machine keeps for itself; "
                "they were left out"
            )
        return done

    def _may_reuse(self, commit: Checksum, rules: derived.Rules) -> bool:
        """Whether a layer was read by the same rules: they decide what is kept of it."""
        if not self.repo.is_complete(commit):
            return False
        metadata = self.repo.commit(commit).metadata
        return _RULES in metadata and metadata[_RULES].as_text() == _rules_text(rules)

    # --- the merge -------------------------------------------------------------------------

    def _merge(self, base: Checksum, tree: Tree, layers: Sequence[LayerImport]) -> Checksum:
        for layer in layers:
            names = self.repo.commit(layer.commit).metadata[_IMPLIED]
            implied = set(json.loads(names.as_text()))
            tree = derived.overlay(tree, Tree.load(self.repo, layer.commit), implied)
        if layers:
            self._remove_empty_network_files(tree)
            with selinux.policy_of(self.repo, tree) as policy:
                if policy is not None:
                    selinux.relabel(self.repo, self.writer, tree, policy, rules=self.rules)
        config = self.source.config
        metadata = {
            MANIFEST_DIGEST: Variant.text(str(self.source.manifest_digest)),
            MANIFEST: Variant.text(_canonical(self.source.manifest_bytes)),
            IMAGE_CONFIG: Variant.text(_canonical(self.source.config_bytes)),
        }
        version = config.labels.get(labels.VERSION)
        if version:
            metadata["version"] = Variant.text(version)
        created = self.source.manifest.annotations.get("org.opencontainers.image.created")
        timestamp = _time(created or config.created)
        merged = commit_tree(self.writer, tree, timestamp=timestamp, parent=base, metadata=metadata)
        for name, commit in self.reads.refs.items():
            self.writer.set_ref(name, commit)
        self.writer.set_ref(image_ref(self.reference), merged)
        return merged

    def _remove_empty_network_files(self, tree: Tree) -> None:
        """Empty hostname and resolv.conf are what container tools mount over, not content."""
        etc = tree.folder("usr/etc")
        for name in ("hostname", "resolv.conf"):
            checksum = etc.files.get(name) if etc else None
            if etc is None or checksum is None or self.repo.size(checksum):
                continue
            if not self.repo.header(checksum).is_symlink:
                del etc.files[name]


def _keeps_other_tops(repo: Repo, base: Tree) -> bool:
    """Whether the system's root is transient or composefs, so that any top-level folder may be."""
    for path in _PREPARE_ROOT:
        checksum = base.lookup(path)
        if not isinstance(checksum, str):
            continue
        text = selinux.read_config(repo, checksum)
        config = configparser.RawConfigParser(strict=False, interpolation=None)
        try:
            config.read_string(text)
        except configparser.Error:
            return False
        transient = config.get("root", "transient", fallback="")
        composefs = config.get("composefs", "enabled", fallback="")
        return transient in ("true", "yes", "1") or composefs in (
            "yes",
            "true",
            "1",
            "maybe",
            "signed",
            "verity",
        )
    return False


def _rules_text(rules: derived.Rules) -> str:
    text = f"other-tops={int(rules.other_tops)} keep-var={int(rules.keep_var)}"
    return f"{text} without={rules.without}" if rules.without else text


def _canonical(data: bytes) -> str:
    return canonical_json(json.loads(data)).decode()


def _time(text: str) -> int:
    """Seconds since 1970; 0 when there is no time, as with the year 1 that Go writes for none."""
    try:
        return max(0, parse_rfc3339(text)) if text else 0
    except (ValueError, OverflowError):
        return 0
