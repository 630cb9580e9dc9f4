"""The outcome of an evaluation: three rows of numbers, and warnings where they look wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sidfast.evaluate.quality import Quality

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "",
    "Fréchet pixels",
    "Fréchet features",
    "KID × 10³",
    "precision",
    "recall",
    "variety",
    "copies",
    "nearer to train (chance)",
    "calls / image",
    "images / s",
)
RECALL_SHARE = 0.5
VARIETY_SHARE = 0.75
CLASS_SHARE = 0.25


@dataclass(frozen=True)
class Report:
    """Generator, teacher and real held-out images, measured alike.

    Attributes:
        generator, teacher, real: what was measured of each.
        reference_class_shares: share of each class among the references.
        seed: of the samples and of the subsets.
    """

    generator: Quality
    teacher: Quality
    real: Quality
    reference_class_shares: tuple[float, ...]
    seed: int

    @property
    def rows(self) -> dict[str, Quality]:
        return {"generator": self.generator, "teacher": self.teacher, "real split": self.real}

    @property
    def frechet_ratio(self) -> float:
        """Generator's pixel Frechet distance over the teacher's; below 1 it is the better one."""
        return self.generator.frechet_pixels / self.teacher.frechet_pixels

    @property
    def warnings(self) -> list[str]:
        """One line for every sign of collapse or memorisation, none if all is well."""
        return [line for name, row in self.rows.items() for line in self._warnings_of(name, row)]

    def _warnings_of(self, name: str, row: Quality) -> list[str]:
        """Collapse: recall under half or variety under three quarters of the real split's, or a
        class at under a quarter of its share. Memorisation: `Neighbours.memorised`.
        """
        lines = []
        if row.recall < RECALL_SHARE * self.real.recall:
            lines.append(
                f"{name}: collapse: its samples cover {row.recall:.0%} of the real images, "
                f"a real set of that size {self.real.recall:.0%}"
            )
        near, real_near = row.neighbours, self.real.neighbours
        if near.variety < VARIETY_SHARE * real_near.variety:
            lines.append(
                f"{name}: collapse: its samples fall to {near.variety:.2f} different nearest real "
                f"images each, real images to {real_near.variety:.2f}"
            )
        pairs = zip(row.class_shares, self.reference_class_shares, strict=True)
        rare = [str(k) for k, (share, real) in enumerate(pairs) if share < CLASS_SHARE * real]
        if rare:
            lines.append(
                f"{name}: collapse: too few samples of class {', '.join(rare)}, under a quarter "
                f"of the real share"
            )
        if near.memorised:
            lines.append(
                f"{name}: memorisation: {near.copies:.0%} of its samples are close copies of "
                f"training images, {near.duplicates:.1%} exact ones"
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, ready for JSON; `from_dict` reads them back."""
        return asdict(self) | {"frechet_ratio": self.frechet_ratio, "warnings": self.warnings}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Report:
        return cls(
            **{name: Quality.from_dict(record[name]) for name in ("generator", "teacher", "real")},
            reference_class_shares=tuple(record["reference_class_shares"]),
            seed=record["seed"],
        )

    def markdown(self) -> str:
        """The table and the warnings as Markdown, readable as plain text."""
        lines = [_line(COLUMNS), _line(["---"] + ["---:"] * (len(COLUMNS) - 1))]
        lines += [_line(cells) for cells in self._cells()]
        lines += [f"\n**Warning:** {warning}" for warning in self.warnings]
        return "\n".join(lines) + "\n"

    def table(self) -> Table:
        """The table for a terminal, a line for each measure; the warnings are its caption."""
        from rich.table import Table

        warnings = "\n".join(f"warning: {line}" for line in self.warnings)
        table = Table(caption=warnings or None, caption_style="bold red", caption_justify="left")
        rows = self._cells()
        for number, name in enumerate(["", *(cells[0] for cells in rows)]):
            table.add_column(name, justify="right" if number else "left")
        for number, measure in enumerate(COLUMNS[1:], 1):
            table.add_row(measure, *(cells[number] for cells in rows))
        return table

    def _cells(self) -> list[list[str]]:
        ratio = ["generator / teacher"]
        ratio += [
            _ratio(getattr(self.generator, name), getattr(self.teacher, name))
            for name in ("frechet_pixels", "frechet_features")
        ]
        ratio += [""] * 6
        ratio += [
            _ratio(getattr(self.generator, name), getattr(self.teacher, name))
            for name in ("network_calls", "images_per_second")
        ]
        return [_row(name, row) for name, row in self.rows.items()] + [ratio]


def _row(name: str, row: Quality) -> list[str]:
    low, high = row.neighbours.chance
    return [
        f"{name} ({row.images:,})",
        f"{row.frechet_pixels:.3f}",
        f"{row.frechet_features:.3f}",
        f"{row.kid * 1e3:.2f} ± {row.kid_std * 1e3:.2f}",
        f"{row.precision:.2f}",
        f"{row.recall:.2f}",
        f"{row.neighbours.variety:.2f}",
        f"{row.neighbours.copies:.1%}",
        f"{row.neighbours.nearer_to_train:.2f} ({low:.2f}-{high:.2f})",
        "–" if row.network_calls is None else str(row.network_calls),
        "–" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
    ]


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.3g} ×" if ours is not None and theirs else "–"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
