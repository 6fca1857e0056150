"""Rules that images keep, as values in a registry; a rule's check is a pure function of the image.

A finding is one sentence with its path, and what to do about it. `fatal` findings fail a build,
`warning` ones do not. The rules of `bootc container lint` keep its names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from strata.core.text import shown
from strata.inspect.entries import File
from strata.inspect.files import ImageFiles
from strata.inspect.view import ImageView
from strata.rpm.nevra import NEVRA

FATAL, WARNING = "fatal", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. path: empty when it is the whole image's."""

    message: str
    hint: str
    path: str = ""


@dataclass(frozen=True)
class Subject:
    """What rules look at.

    contents: bytes of the files that rules ask for (`Rule.reads`), by path; base_contents: of the
    base's files. packages: by the
    package database, None when there is none; base_packages: of the base's layers, None without a
    base. listed: the last layer's package list, None when it is none; problem: why it is not
    believed, when the label says it is there. node_only: patterns of the node layer's packages.
    """

    view: ImageView
    image: ImageFiles
    contents: Mapping[str, bytes]
    base_contents: Mapping[str, bytes]
    packages: tuple[NEVRA, ...] | None
    base_packages: tuple[NEVRA, ...] | None
    listed: tuple[NEVRA, ...] | None
    problem: str
    node_only: Sequence[str] = ()

    @property
    def files(self) -> Mapping[str, File]:
        """The image's files by path."""
        return self.image.files

    def below(self, folder: str) -> list[tuple[str, File]]:
        """Everything below a folder, in order of path."""
        start = f"{folder}/"
        return [(path, file) for path, file in self.files.items() if path.startswith(start)]


@dataclass(frozen=True)
class Rule:
    """One rule. id: as bootc names it, where it is bootc's. level: fatal or warning.

    text: what must hold. source: who asks for it. reads: which files' bytes the check needs.
    ready: why it cannot be checked, empty when it can.
    """

    id: str
    level: str
    text: str
    source: str
    check: Callable[[Subject], Iterable[Finding]]
    reads: Callable[[str], bool] = lambda path: False
    ready: Callable[[Subject], str] = lambda subject: ""


@dataclass(frozen=True)
class Outcome:
    """What came of a rule. skipped: why it was not checked, empty when it was."""

    rule: Rule
    findings: tuple[Finding, ...]
    skipped: str = ""

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {
            "rule": self.rule.id,
            "level": self.rule.level,
            "text": self.rule.text,
            "source": self.rule.source,
            "skipped": self.skipped or None,
            "findings": [
                {"message": shown(of.message), "hint": of.hint, "path": shown(of.path) or None}
                for of in self.findings
            ],
        }


def check(subject: Subject, rules: Sequence[Rule]) -> tuple[Outcome, ...]:
    """Check an image against rules, in their order."""
    outcomes = []
    for rule in rules:
        skipped = rule.ready(subject)
        findings = () if skipped else tuple(rule.check(subject))
        outcomes.append(Outcome(rule, findings, skipped))
    return tuple(outcomes)


def wanted_files(files: Mapping[str, File], rules: Sequence[Rule]) -> dict[str, File]:
    """The regular files whose bytes the rules look into, by path."""
    return {
        path: file
        for path, file in files.items()
        if file.kind == "file" and any(rule.reads(path) for rule in rules)
    }


def is_fatal(outcomes: Iterable[Outcome]) -> bool:
    """Whether a fatal rule has a finding."""
    return any(of.findings and of.rule.level == FATAL for of in outcomes)
