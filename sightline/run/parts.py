"""Results about the samples of a list on their way to one file, in parts that any process of any machine may write.

    <name>.parts/settings.json       what the results are made from
    <name>.parts/<random>.parquet    rows of some samples, which samples these are, and which could not be read

A part is written under another name and renamed when it is whole. Parts are the only memory of what has been done: any
number of processes may add some, be killed at any moment and start again. Machines that share nothing each write parts
of their own, which are brought together afterwards; a sample that several parts hold counts once.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sightline.run.atomic import replacing, write_json
from sightline.run.unfinished import is_unfinished

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
_NOTES = b"sightline"


@dataclass(frozen=True)
class Piece:
    """One of several shares of a list of samples, which its numbers alone say: every ``of``-th one.

    Attributes:
        number: Which share, from 0.
        of: How many there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise ValueError(f"Expected a piece from 0 to {self.of - 1} of {self.of}, got {self.number}.")

    def places(self, count: int) -> range:
        """Return the places of this share in a list of ``count`` samples."""
        return range(self.number, count, self.of)


@dataclass(frozen=True)
class Part:
    """What a part says of itself.

    Attributes:
        path: Its file.
        done: Samples that it holds the rows of; there may be none about a sample.
        left_out: Samples that could not be read, with the reason.
        notes: What else its writer had to say.
        pieces: How many pieces the list was divided into for it; None where processes divided it among themselves.
    """

    path: Path
    done: tuple[str, ...]
    left_out: dict[str, str]
    notes: dict[str, Any]
    pieces: int | None


@dataclass
class Progress:
    """What the parts hold together.

    Attributes:
        done: Samples with results.
        left_out: Samples that could not be read, with the reason; later attempts may have read them.
    """

    done: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)


class PartStore:
    """The folder of the parts of one result.

    Args:
        folder: Where the parts go.
        schema: Columns of the rows; one is ``sample_id``.
        made_from: Everything that the results depend on, as plain values. Parts made from anything else are no use.
            None where that cannot be told: then parts of an earlier job are no use either.
    """

    def __init__(self, folder: Path, schema: pa.Schema, made_from: Mapping[str, Any] | None) -> None:
        self.folder = Path(folder)
        self.schema = schema
        self.made_from: dict[str, Any] = (
            {"job": uuid.uuid4().hex} if made_from is None else json.loads(json.dumps(dict(made_from)))
        )

    @classmethod
    def beside(cls, path: Path, schema: pa.Schema, made_from: Mapping[str, Any] | None) -> PartStore:
        """Return the parts of a file that is to be written; they lie beside it, hidden."""
        return cls(path.with_name(f".{path.name}.parts"), schema, made_from)

    def stored_settings(self) -> dict[str, Any] | None:
        """Return what the parts that are there were made from; None where there are none."""
        return _read_settings(self.folder)

    def begin(self) -> None:
        """Prepare for writing; parts made from anything else are discarded, and that is said."""
        stored = self.stored_settings()
        if stored != self.made_from and self.folder.is_dir():
            if self.files() or (stored is None and any(self.folder.iterdir())):
                why = f"another {', '.join(_differing(stored, self.made_from))}" if stored else "an older version"
                log.warning("Discarding the unfinished results in %s, which are of %s.", self.folder, why)
            self.discard()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / SETTINGS, self.made_from)

    def discard(self) -> None:
        """Delete all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def files(self) -> list[Path]:
        """Return the files of the parts that are whole."""
        return _part_files(self.folder)

    def write(
        self,
        rows: Sequence[pa.Table],
        done: Sequence[str],
        left_out: Mapping[str, str],
        notes: Mapping[str, Any] | None = None,
        pieces: int | None = None,
    ) -> None:
        """Add a part; each table of rows becomes a row group. The other arguments as in `Part`."""
        about = {"done": sorted(done), "left_out": dict(left_out), **(notes or {})}
        if pieces is not None:
            about["pieces"] = pieces
        schema = self.schema.with_metadata({_NOTES: json.dumps(about)})
        with (
            replacing(self.folder / f"{uuid.uuid4().hex}.parquet") as temporary,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            for table in rows:
                writer.write_table(table.cast(self.schema).replace_schema_metadata(schema.metadata))

    def parts(self) -> list[Part]:
        """Read what every part says of itself."""
        return [self.read_part(path) for path in self.files()]

    def read_part(self, path: Path) -> Part:
        """Read what a part says of itself, without its rows.

        Raises:
            ValueError: If the file is damaged.
        """
        try:
            notes = json.loads(pq.read_schema(path).metadata[_NOTES])
            done, left_out = tuple(notes.pop("done")), dict(notes.pop("left_out"))
            pieces = notes.pop("pieces", None)
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no whole part of a result ({error}). Copy it again, or delete it to have it made again."
            ) from error
        return Part(path, done, left_out, notes, pieces)

    def progress(self) -> Progress:
        """Read what all parts hold together."""
        found = Progress()
        for part in self.parts():
            found.done.update(part.done)
            found.left_out.update(part.left_out)
        return found

    def gather(self, folders: Sequence[Path]) -> None:
        """Bring in the parts of other folders, e.g. copied from other machines.

        Raises:
            FileNotFoundError: If one of the folders holds no parts.
            ValueError: If parts were made from something else, or a file is damaged.
        """
        for folder in folders:
            stored = _read_settings(folder)
            if stored is None:
                raise FileNotFoundError(f"{folder} holds no parts of a result: it has no {SETTINGS}.")
            if stored != self.made_from:
                told = [f"{key} {stored.get(key)!r}" for key in _differing(stored, self.made_from)]
                ours = [f"{key} {self.made_from.get(key)!r}" for key in _differing(stored, self.made_from)]
                raise ValueError(
                    f"The parts in {folder} do not belong to this result: they were made from {', '.join(told)}; "
                    f"expected {', '.join(ours)}. Leave them out, or make them again."
                )
            for path in _part_files(folder):
                self.read_part(path)
                if not (self.folder / path.name).exists():
                    with replacing(self.folder / path.name) as temporary:
                        shutil.copyfile(path, temporary)

    def check_complete(self, sample_ids: Sequence[str]) -> None:
        """Check that the parts hold every sample of a list, and no others.

        Raises:
            RuntimeError: If a sample is neither done nor known to be unreadable; the message names its piece.
            ValueError: If there are samples that the list does not have.
        """
        parts = self.parts()
        known = {name for part in parts for name in (*part.done, *part.left_out)}
        strange = known.difference(sample_ids)
        if strange:
            raise ValueError(
                f"The parts in {self.folder} hold {len(strange)} samples that the data does not have, e.g. "
                f"{min(strange)}. They are of another list of samples: delete the folder, or restore the data."
            )
        missing = [place for place, name in enumerate(sample_ids) if name not in known]
        if not missing:
            return
        counts = {part.pieces for part in parts}
        of = counts.pop() if len(counts) == 1 else None
        numbers = sorted({place % of for place in missing}) if of else []
        where = f" ({'piece' if len(numbers) == 1 else 'pieces'} {', '.join(map(str, numbers))} of {of})" if of else ""
        raise RuntimeError(
            f"{len(missing)} of {len(sample_ids)} samples have no results yet{where}, e.g. {sample_ids[missing[0]]}; "
            f"what is done stays in {self.folder}. Run the same command again to go on."
        )

    def rows(self, tolerance: float = 0.0) -> Iterator[pa.Table]:
        """Yield all rows, those of a sample once, one row group in memory at a time.

        Args:
            tolerance: By how much numbers may differ between two parts that hold the same sample.

        Raises:
            ValueError: If two parts hold different results of a sample.
        """
        parts = self.parts()
        first: dict[str, Path] = {}
        for part in parts:
            for name in part.done:
                first.setdefault(name, part.path)
        for part in parts:
            again = [name for name in part.done if first[name] != part.path]
            for path in sorted({first[name] for name in again}):
                self._check_same(path, part.path, [name for name in again if first[name] == path], tolerance)
            with pq.ParquetFile(part.path) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group).cast(self.schema).replace_schema_metadata(None)
                    yield rows.filter(pc.invert(_is_about(rows, again))) if again else rows

    def _check_same(self, first: Path, second: Path, names: list[str], tolerance: float) -> None:
        floats = [column.name for column in self.schema if pa.types.is_floating(column.type)]
        exact = [name for name in self.schema.names if name not in floats]
        ours, theirs = (self._of_samples(path, names).sort_values(exact, ignore_index=True) for path in (first, second))
        if len(ours) == len(theirs) and ours[exact].equals(theirs[exact]):
            close = np.isclose(ours[floats], theirs[floats], rtol=0, atol=tolerance, equal_nan=True).all(axis=1)
            if close.all():
                return
            names = [ours["sample_id"][int(np.flatnonzero(~close)[0])]]
        raise ValueError(
            f"Two parts hold different results of the same sample, e.g. of {names[0]}: {first} and {second}. They were "
            "made from the same settings, so one of them is wrong: delete it and make it again."
        )

    def _of_samples(self, path: Path, names: list[str]) -> pd.DataFrame:
        rows = pq.read_table(path)
        frame = rows.filter(_is_about(rows, names)).to_pandas()
        # Categories sort in the order in which a file happens to list them.
        return frame.astype({name: object for name, kind in frame.dtypes.items() if kind == "category"})


def in_order(rows: Iterable[pa.Table], schema: pa.Schema, sample_ids: Sequence[str]) -> pd.DataFrame:
    """Put rows together in the order of their samples; rows about one sample keep theirs."""
    frame = pa.concat_tables([schema.empty_table(), *rows]).to_pandas()
    order = {name: place for place, name in enumerate(sample_ids)}
    return frame.sort_values("sample_id", key=lambda names: names.map(order), ignore_index=True, kind="stable")


def _is_about(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(rows["sample_id"].cast(pa.string()), value_set=pa.array(names, pa.string()))


def _part_files(folder: Path) -> list[Path]:
    return sorted(path for path in Path(folder).glob("*.parquet") if not is_unfinished(path.name))


def _read_settings(folder: Path) -> dict[str, Any] | None:
    path = Path(folder) / SETTINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
