"""What a measure found: rounds, medians, and how they compare with what was promised."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ``value`` is at most ``limit``. ``how`` says in words what was divided by what."""

    promise: str
    value: float
    limit: float
    unit: str
    how: str

    @property
    def met(self) -> bool:
        """Whether it was kept."""
        return self.value <= self.limit


@dataclass(slots=True)
class Samples:
    """Figures of one measure's rounds, by contender and figure."""

    rounds: defaultdict[str, defaultdict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, contender: str, **figures: float) -> None:
        """Add one round of a contender."""
        for figure, value in figures.items():
            self.rounds[contender][figure].append(value)

    def median(self, contender: str, figure: str) -> float:
        """The median over all rounds."""
        return statistics.median(self.rounds[contender][figure])


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measure's result: raw rounds, promises kept or not, and what to know about it."""

    name: str
    title: str
    samples: Samples
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """All of it, every round included, for results.json."""
        rounds = {contender: dict(figures) for contender, figures in self.samples.rounds.items()}
        return {"name": self.name, "title": self.title, "rounds": rounds,
                "targets": [asdict(target) for target in self.targets]}  # fmt: skip
