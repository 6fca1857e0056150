"""What every kind of target comes down to before it is built: a job with all its inputs known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from strata.compose.context import BuildContext
from strata.compose.steps import Step
from strata.core.events import Reporter
from strata.core.record import BuildRecord, Input
from strata.rpm.lock import Lock
from strata.treefile.target import Target


class Job(Protocol):
    """A target ready to be built. epoch: the time its content has, in seconds."""

    @property
    def target(self) -> Target:
        """What is built."""

    @property
    def lock(self) -> Lock | None:
        """The packages that are installed; None where none are."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that goes in, digested, sorted."""

    @property
    def epoch(self) -> int:
        """The time that files and records say."""

    @property
    def steps(self) -> Step:
        """The last of the steps that it is built in, which stands on the others."""

    def build(
        self,
        context: BuildContext,
        earlier: BuildRecord | None,
        current: bool,
        reporter: Reporter,
    ) -> Mapping[str, object]:
        """Build it into the store; returns the record's outputs.

        earlier: the record of the last build. current: it is of these inputs, and what is built
        now is compared with it. Raises any StrataError.
        """
