"""See what a video transformer looks at; cut what it does not need.

    import sightline

    model = sightline.load("runs/demo/pruned/relevance-r-lowest-k2")
    model.predict("a.mp4")

The names listed here are the public ones (docs/library.md). Each is imported when it is first used: importing the
package alone takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.backbones import Backbone, build_backbone
    from sightline.explain import CellMap, overlay, write_mp4
    from sightline.export.model import Model, load
    from sightline.export.prediction import Prediction
    from sightline.export.reading import ExportError
    from sightline.library import maps, most_relevant, score
    from sightline.types import Unit
    from sightline.video.sources import DecodedFrames, FrameSource, VideoFile
    from sightline.video.video_file import UnreadableClip

__all__ = [
    "Backbone",
    "CellMap",
    "DecodedFrames",
    "ExportError",
    "FrameSource",
    "Model",
    "Prediction",
    "Unit",
    "UnreadableClip",
    "VideoFile",
    "build_backbone",
    "load",
    "maps",
    "most_relevant",
    "overlay",
    "score",
    "write_mp4",
]

# What stands above for type checkers, for __getattr__: the module of each name.
_MODULES = {
    "sightline.backbones": ("Backbone", "build_backbone"),
    "sightline.explain": ("CellMap", "overlay", "write_mp4"),
    "sightline.export.model": ("Model", "load"),
    "sightline.export.prediction": ("Prediction",),
    "sightline.export.reading": ("ExportError",),
    "sightline.library": ("maps", "most_relevant", "score"),
    "sightline.types": ("Unit",),
    "sightline.video.sources": ("DecodedFrames", "FrameSource", "VideoFile"),
    "sightline.video.video_file": ("UnreadableClip",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
