"""The token reductions that can be asked for by name. A reducer registers here and nowhere else."""

from __future__ import annotations

from sightline.tokens.attended_tokens import KeepAttended
from sightline.tokens.changed_tokens import KeepChanged
from sightline.tokens.grid_tokens import KeepGrid
from sightline.tokens.ia_red2 import IARED2
from sightline.tokens.random_tokens import KeepRandom
from sightline.tokens.rlt import RLT
from sightline.tokens.sta.sta import STA
from sightline.tokens.token_reducer import TokenReducer
from sightline.tokens.tome import ToMe

# A reducer is a frozen dataclass; its fields, all with defaults, are its options.
REDUCERS: dict[str, type[TokenReducer]] = {
    "random": KeepRandom,
    "sta": STA,
    "grid": KeepGrid,
    "temporal_difference": KeepChanged,
    "attention": KeepAttended,
    "rlt": RLT,
    "tome": ToMe,
    "ia_red2": IARED2,
}
