"""The score table on disk, written in parts so that a run can be killed at any moment and go on.

    relevance/<split>/heads.parquet, layers.parquet    the finished tables
    relevance/<split>/manifest.json                    what they were made from and what was left out
    relevance/<split>/<kind>.parts/                    the parts of an unfinished table and its settings.json

How parts are written, brought together and resumed is told in `sightline.run.parts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sightline.run.atomic import replacing, write_json
from sightline.run.parts import PartStore
from sightline.run.paths import RelevanceFolder
from sightline.types import Unit

if TYPE_CHECKING:  # who only reads a table needs no PyTorch
    from sightline.relevance.precision import Precision
    from sightline.relevance.scores import Scores

KINDS = ("heads", "layers")
FORMAT_VERSION = 1

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
        self.path = RelevanceFolder(self.folder).scores(settings.kind)
        self.parts = PartStore(RelevanceFolder(self.folder).parts(settings.kind), SCHEMA, asdict(settings))

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
            self.parts.begin()

    def is_finished(self) -> bool:
        """Whether the whole table is there, made with these settings."""
        return self._manifest_entry() is not None and self._stored_settings() == asdict(self.settings)

    def discard(self) -> None:
        """Delete the table and its parts."""
        manifest = read_manifest(self.folder)
        if manifest["tables"].pop(self.settings.kind, None) is not None:
            write_json(RelevanceFolder(self.folder).manifest, manifest)
        self.path.unlink(missing_ok=True)
        self.parts.discard()

    def gather(self, folders: Sequence[Path]) -> None:
        """Bring in the unfinished tables of other folders ``relevance/<split>``, e.g. copied from other machines.

        Raises:
            FileNotFoundError: If one of the folders holds no unfinished table of this kind.
            ValueError: If one was made with other settings.
        """
        self.parts.gather([RelevanceFolder(folder).parts(self.settings.kind) for folder in folders])

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
            ValueError: If two parts hold different scores of a sample.
        """
        if every_sample:
            self.parts.check_complete(sample_ids)
        found = self.parts.progress()
        floors = [part.notes.get("noise_floor") for part in self.parts.parts()]
        noise_floor = max((floor for floor in floors if floor is not None), default=None)
        # Kernels differ with the number of clips in a batch, and with the precision.
        rows = self.parts.rows(tolerance=max(1e-5, 10 * (noise_floor or 0.0)))
        with replacing(self.path) as temporary:
            pq.write_table(sorted_rows(rows, sample_ids), temporary)
        entry = {
            **asdict(self.settings),
            "samples": len(found.done),
            "left_out": [
                {"sample_id": name, "reason": why}
                for name, why in sorted(found.left_out.items())
                if name not in found.done
            ],
            "noise_floor": noise_floor,
            **provenance,
        }
        manifest = read_manifest(self.folder)
        manifest["tables"][self.settings.kind] = entry
        write_json(RelevanceFolder(self.folder).manifest, manifest)
        self.parts.discard()
        return entry

    def _manifest_entry(self) -> dict[str, Any] | None:
        entry = read_manifest(self.folder)["tables"].get(self.settings.kind)
        return entry if self.path.exists() else None

    def _stored_settings(self) -> dict[str, Any] | None:
        entry = self._manifest_entry()
        if entry is None:
            entry = self.parts.stored_settings()
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


def sorted_rows(rows: Iterable[pa.Table], sample_ids: Sequence[str]) -> pa.Table:
    """Sort rows by sample (in the given order), layer, site and head."""
    frame = pa.concat_tables([SCHEMA.empty_table(), *rows]).to_pandas()
    order = {name: place for place, name in enumerate(sample_ids)}
    frame["_place"] = frame["sample_id"].map(order)
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
    path = RelevanceFolder(folder).scores(kind)
    if entry is None or not path.exists():
        state = "is unfinished" if RelevanceFolder(folder).parts(kind).exists() else "does not exist"
        raise FileNotFoundError(
            f"The score table of {kind} in {folder} {state}. "
            f"Make it with: python train.py ablate --run {folder.parent.parent} --split {folder.name}"
        )
    if entry["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path} has format {entry['format_version']}; this version reads format {FORMAT_VERSION}.")
    return pq.read_table(path).to_pandas()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json``; without one, an empty manifest."""
    path = RelevanceFolder(folder).manifest
    return json.loads(path.read_text()) if path.exists() else {"tables": {}}
