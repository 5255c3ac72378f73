"""The suite repair without a check: what is left is the agent's own work. An adapter in a file."""

from __future__ import annotations

import dataclasses

from evals.instance import Instance
from evals.suites.repair import Repair


class Small(Repair):
    """As ``Repair``; the model is told of no check and none is run."""

    name = "small"

    def load(self, dataset: str | None) -> list[Instance]:
        """See ``base.Suite``."""
        return [dataclasses.replace(i, check=None) for i in super().load(dataset)]


SUITE = Small()
