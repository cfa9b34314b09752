"""What a backbone looks at: maps, how good they are, and drawing them over frames."""

from sightline.explain.cell_map import CellMap
from sightline.explain.drawing.overlay import color_range, overlay, write_mp4
from sightline.explain.methods.head_maps import head_maps
from sightline.explain.methods.rollout import rollout

__all__ = ["CellMap", "color_range", "head_maps", "overlay", "rollout", "write_mp4"]
