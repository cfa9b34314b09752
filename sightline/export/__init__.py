"""A plan applied and written: the folder, reading it back, its cost, and testing that very file."""

from sightline.export.counting import Cost, count_cost, percent_change
from sightline.export.depth import layers_to_skip
from sightline.export.latency import Latency, compare_latency, measure_latency
from sightline.export.reading import ExportError, load_exported, read_description
from sightline.export.writing import export_model

__all__ = [
    "Cost",
    "ExportError",
    "Latency",
    "compare_latency",
    "count_cost",
    "export_model",
    "layers_to_skip",
    "load_exported",
    "measure_latency",
    "percent_change",
    "read_description",
]
