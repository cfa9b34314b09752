"""One list on disk of the clips that the processes of a job could not read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path

from sightline.run.csv_table import read_lines, write_lines, write_rows

COLUMNS = ("split", "sample_id", "reason")
Rows = dict[tuple[str, str], str]


class BadClipRecord:
    """A CSV file of every unreadable clip that any process has met, each once.

    Every process appends to a file of its own, and whoever adds to its own joins all of them. Nothing waits for
    another process, so nothing can hang; the folder must be the same for all, as a run's folder is.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path
        self.rank = rank
        self._parts = path.with_name(f".{path.name}.parts")

    def clear(self) -> None:
        """Forget what an earlier job met. One process does so, before any adds."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self.path.unlink(missing_ok=True)

    def add(self, split: str, reasons: Mapping[str, str]) -> dict[str, str]:
        """Add clips of a split; give all of this split that any process has added, with their reasons."""
        self._parts.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        # A line each: other processes may read while this is written, and take whole lines only.
        lines = [(split, name, " ".join(reason.split())) for name, reason in reasons.items()]
        write_lines(text, lines)
        with (self._parts / f"{self.rank}.csv").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text.getvalue())
        self._join()
        return self.of_split(split)

    def of_split(self, split: str) -> dict[str, str]:
        """The unreadable clips of a split, with the reasons."""
        return {name: reason for (of, name), reason in self._rows().items() if of == split}

    def splits(self) -> list[str]:
        """The splits that unreadable clips are known of."""
        return sorted({split for split, _ in self._rows()})

    def _rows(self) -> Rows:
        rows: Rows = {}
        for part in sorted(self._parts.glob("*.csv")):
            whole, _, _ = part.read_text(encoding="utf-8").rpartition("\n")
            for split, name, reason in read_lines(io.StringIO(whole)):
                rows.setdefault((split, name), reason)
        return rows

    def _join(self) -> None:
        """Write the joint file, again and again until it holds all that is in the parts.

        Whoever writes last looks once more afterwards: so nothing that another added meanwhile stays out.
        """
        written: Rows | None = None
        while (rows := self._rows()) != written:
            write_rows(self.path, COLUMNS, [(*key, reason) for key, reason in rows.items()])
            written = rows
