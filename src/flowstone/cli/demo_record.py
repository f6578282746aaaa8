"""What the demo remembers of a repository, so that a later call recomputes what changed and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self


@dataclass(slots=True)
class Record:
    """From what the committed data was made.

    It is written before the work starts, with what the work has still to replace, and again after it: so an
    interrupted demo neither forgets a changed month nor computes a finished one twice.

    Args:
        months: month (ISO date) to the fingerprint of its commits, for every month that was ever started.
        code: fingerprint of the example's code.
        covered: the months from which the overall assets were made.
        stale: months whose committed data was made from other commits or by other code.
        overall_stale: the same of what is made from all months.
    """

    months: dict[str, str] = field(default_factory=dict)
    code: str = ""
    covered: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    overall_stale: bool = False

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what is remembered; None when the file is missing or damaged."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                months={str(month): str(print_) for month, print_ in document["months"].items()},
                code=str(document["code"]),
                covered=[str(month) for month in document["covered"]],
                stale=[str(month) for month in document["stale"]],
                overall_stale=bool(document["overall_stale"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "months": self.months,
            "code": self.code,
            "covered": self.covered,
            "stale": self.stale,
            "overall_stale": self.overall_stale,
        }
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        temporary.replace(path)

    def advanced(self, months: Mapping[date, str], code: str) -> Record:
        """Return the record for the repository and the code as they are now.

        Args:
            months: the months to analyse and the fingerprints of their commits.
            code: fingerprint of the code.

        Example:
            >>> both = {"2024-01-01": "a", "2024-02-01": "b"}
            >>> before = Record(both, code="1", covered=sorted(both))
            >>> after = before.advanced({date(2024, 1, 1): "a", date(2024, 2, 1): "c", date(2024, 3, 1): "d"}, "1")
            >>> after.stale, after.overall_stale
            (['2024-02-01'], True)
        """
        now = {month.isoformat(): fingerprint for month, fingerprint in months.items()}
        changed = {
            month for month, known in self.months.items() if code != self.code or now.get(month, known) != known
        }
        stale = sorted(changed.union(self.stale))
        covered = sorted(now)
        overall = self.overall_stale or covered != self.covered or any(month in now for month in stale)
        return Record({**self.months, **now}, code, covered, stale, overall)

    def done(self) -> Record:
        """Return the record after everything that it covers was computed."""
        left = [month for month in self.stale if month not in self.covered]
        return Record(self.months, self.code, self.covered, left, overall_stale=False)


def code_fingerprint(directory: Path) -> str:
    """Return a hash of the code in a directory."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.suffix in (".py", ".css")):
        digest.update(file.relative_to(directory).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
