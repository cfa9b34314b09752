"""The score table on disk, written in parts so that a run can be killed at any moment and go on.

    relevance/<split>/heads.parquet, layers.parquet    the finished tables
    relevance/<split>/manifest.json                    what they were made from and what was left out
    relevance/<split>/<kind>.parts/                    the parts of an unfinished table and its settings.json

A part is written under another name and renamed when whole. Parts are the only memory of what has been done: any
number of processes may write them, and a sample found in two parts counts once.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sightline.relevance.precision import Precision
from sightline.relevance.scores import Scores
from sightline.run.atomic import write_json
from sightline.types import Unit

KINDS = ("heads", "layers")
FORMAT_VERSION = 1
_NOTES = b"sightline"

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("group", pa.string()),
        ("layer", pa.int32()),
        ("site", pa.string()),
        ("head", pa.int32()),
        ("p_true", pa.float64()),
        ("p_true_ablated", pa.float64()),
        ("dprob", pa.float64()),
        ("jsd", pa.float64()),
        ("r", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Settings:
    """Everything that the scores depend on; two runs with equal settings make the same table.

    Attributes:
        kind: ``heads`` or ``layers``.
        weights_sha256: Hash of the model's weights and structure.
        data_sha256: Hash of the list of samples and of how frames are taken from them.
        precision: Number format of the forward passes.
        sampling: ``full``, every unit on every sample; or how a race chose (`sightline.relevance.race_job`).
        format_version: Version of the table's format.
    """

    kind: str
    weights_sha256: str
    data_sha256: str
    precision: Precision = "float32"
    sampling: str = "full"
    format_version: int = FORMAT_VERSION


@dataclass
class Progress:
    """What the parts of a table hold together.

    Attributes:
        done: Names of the samples that have scores.
        left_out: Samples that could not be read, with the reason.
        noise_floor: Largest r of a variant in which nothing was ablated; None before it was measured.
    """

    done: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    noise_floor: float | None = None


class ScoreTable:
    """One score table of a run's folder, finished or not.

    Args:
        folder: ``relevance/<split>`` of the run.
        settings: What the scores depend on.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if settings.kind not in KINDS:
            raise ValueError(f"A score table is of heads or of layers, got {settings.kind!r}.")
        self.folder = Path(folder)
        self.settings = settings
        self.path = self.folder / f"{settings.kind}.parquet"
        self.parts = self.folder / f"{settings.kind}.parts"

    def begin(self, overwrite: bool = False) -> None:
        """Prepare for writing, or do nothing where the finished table is there already.

        Args:
            overwrite: Throw away a table, finished or not, that was made with other settings.

        Raises:
            ValueError: If there is a table made with other settings and ``overwrite`` is false.
        """
        stored = self._stored_settings()
        if stored is not None and stored != asdict(self.settings):
            changed = [key for key, value in asdict(self.settings).items() if stored.get(key) != value]
            if not overwrite:
                raise ValueError(
                    f"{self.folder} already holds scores of {self.settings.kind} made with another "
                    f"{', '.join(_PLAIN[key] for key in changed)}. Pass --overwrite true to replace them."
                )
            self.discard()
        if not self.is_finished():
            self.parts.mkdir(parents=True, exist_ok=True)
            write_json(self.parts / "settings.json", asdict(self.settings))

    def is_finished(self) -> bool:
        """Whether the whole table is there, made with these settings."""
        return self._manifest_entry() is not None and self._stored_settings() == asdict(self.settings)

    def discard(self) -> None:
        """Delete the table and its parts."""
        manifest = read_manifest(self.folder)
        if manifest["tables"].pop(self.settings.kind, None) is not None:
            write_json(self.folder / "manifest.json", manifest)
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def progress(self) -> Progress:
        """Read what the parts hold."""
        found = Progress()
        for part in map(self.read_notes, self.part_files()):
            found.done.update(part.done)
            found.left_out.update(part.left_out)
            floors = [f for f in (found.noise_floor, part.noise_floor) if f is not None]
            found.noise_floor = max(floors, default=None)
        return found

    def part_files(self) -> list[Path]:
        """Return the files of the parts that are whole."""
        return sorted(self.parts.glob("*.parquet"))

    def read_notes(self, path: Path) -> Progress:
        """Read what one part says of itself."""
        notes = json.loads(pq.read_schema(path).metadata[_NOTES])
        return Progress(set(notes["done"]), notes["left_out"], notes["noise_floor"])

    def write_part(self, rows: pa.Table | None, part: Progress) -> None:
        """Add a part: rows of some samples, which of them are done and which could not be read."""
        rows = SCHEMA.empty_table() if rows is None else rows
        notes = {"done": sorted(part.done), "left_out": part.left_out, "noise_floor": part.noise_floor}
        name = f"{uuid.uuid4().hex}.parquet"
        unfinished = self.parts / f"{name}.partial"
        pq.write_table(rows.replace_schema_metadata({_NOTES: json.dumps(notes)}), unfinished)
        os.replace(unfinished, self.parts / name)

    def finish(
        self, sample_ids: Sequence[str], provenance: dict[str, Any], every_sample: bool = True
    ) -> dict[str, Any]:
        """Join the parts into the table, write the manifest and delete the parts.

        Args:
            sample_ids: All samples of the split, in the data module's order, which becomes the table's.
            provenance: What else to record in the manifest (class names, versions, checkpoint).
            every_sample: Whether no sample may be missing.

        Raises:
            RuntimeError: If none may be and a sample is neither scored nor known to be unreadable.
        """
        found = self.progress()
        missing = [name for name in sample_ids if name not in found.done and name not in found.left_out]
        if missing and every_sample:
            raise RuntimeError(
                f"{len(missing)} of {len(sample_ids)} samples have no scores yet, e.g. {missing[0]}; the table stays "
                "unfinished. Run the same command again to continue."
            )
        rows = join_parts([pq.read_table(path) for path in self.part_files()], sample_ids)
        unfinished = self.path.with_name(f".{self.path.name}")
        pq.write_table(rows, unfinished)
        os.replace(unfinished, self.path)
        entry = {
            **asdict(self.settings),
            "samples": len(found.done),
            "left_out": [
                {"sample_id": name, "reason": why}
                for name, why in sorted(found.left_out.items())
                if name not in found.done
            ],
            "noise_floor": found.noise_floor,
            **provenance,
        }
        manifest = read_manifest(self.folder)
        manifest["tables"][self.settings.kind] = entry
        write_json(self.folder / "manifest.json", manifest)
        shutil.rmtree(self.parts, ignore_errors=True)
        return entry

    def _manifest_entry(self) -> dict[str, Any] | None:
        entry = read_manifest(self.folder)["tables"].get(self.settings.kind)
        return entry if self.path.exists() else None

    def _stored_settings(self) -> dict[str, Any] | None:
        entry = self._manifest_entry()
        if entry is None and (self.parts / "settings.json").exists():
            entry = json.loads((self.parts / "settings.json").read_text())
        if entry is None:
            return None
        # Tables are older than some settings, which then are at their defaults.
        return {setting.name: entry.get(setting.name, setting.default) for setting in fields(Settings)}


_PLAIN = {
    "kind": "kind of unit",
    "weights_sha256": "model (its weights or structure differ)",
    "data_sha256": "data list (its samples or the way frames are taken differ)",
    "precision": "precision",
    "sampling": "sampling",
    "format_version": "format of the table",
}


def join_parts(parts: Sequence[pa.Table], sample_ids: Sequence[str]) -> pa.Table:
    """Concatenate parts, drop what is there twice, and sort by sample (in the given order), layer, site and head."""
    frame = pa.concat_tables(parts).replace_schema_metadata(None).to_pandas()
    frame = frame.drop_duplicates(["sample_id", "layer", "site", "head"])
    order = {name: place for place, name in enumerate(sample_ids)}
    frame["_place"] = frame["sample_id"].map(order)
    # Rows of samples that are no longer in the list cannot occur: the list is part of the settings.
    frame = frame.sort_values(["_place", "layer", "site", "head"], kind="stable").drop(columns="_place")
    return pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False).replace_schema_metadata(None)


def rows_of(
    scores: Scores, units: Sequence[Unit], sample_id: Sequence[str], label: Sequence[int], group: Sequence[str]
) -> pa.Table:
    """Turn the scores of a batch into rows, sample by sample."""
    u, b = scores.dprob.shape

    def per_sample(values: Sequence[Any]) -> list[Any]:
        return [value for value in values for _ in range(u)]

    def per_unit(values: Sequence[Any]) -> list[Any]:
        return list(values) * b

    columns = {
        "sample_id": per_sample(sample_id),
        "label": per_sample(label),
        "predicted": per_sample(scores.predicted.tolist()),
        "group": per_sample(group),
        "layer": per_unit([unit.layer for unit in units]),
        "site": per_unit([unit.site or None for unit in units]),
        "head": per_unit([None if unit.is_layer else unit.head for unit in units]),
        "p_true": per_sample(scores.p_true.tolist()),
        "p_true_ablated": scores.p_true_ablated.T.reshape(-1).tolist(),
        "dprob": scores.dprob.T.reshape(-1).tolist(),
        "jsd": scores.jsd.T.reshape(-1).tolist(),
        "r": scores.r.T.reshape(-1).tolist(),
    }
    return pa.table(columns, schema=SCHEMA)


def read_scores(folder: Path, kind: str) -> pd.DataFrame:
    """Read a finished score table.

    Raises:
        FileNotFoundError: If there is none, saying which command makes it.
        ValueError: If it is of a format version that this version does not read.
    """
    folder = Path(folder)
    entry = read_manifest(folder)["tables"].get(kind)
    path = folder / f"{kind}.parquet"
    if entry is None or not path.exists():
        state = "is unfinished" if (folder / f"{kind}.parts").exists() else "does not exist"
        raise FileNotFoundError(
            f"The score table of {kind} in {folder} {state}. "
            f"Make it with: python train.py ablate --run {folder.parent.parent} --split {folder.name}"
        )
    if entry["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path} has format {entry['format_version']}; this version reads format {FORMAT_VERSION}.")
    return pq.read_table(path).to_pandas()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json``; without one, an empty manifest."""
    path = Path(folder) / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"tables": {}}
