"""Token reduction: which tokens a backbone goes on with, and a record of what was kept where."""

from sightline.tokens.attended_tokens import KeepAttended
from sightline.tokens.changed_tokens import KeepChanged
from sightline.tokens.grid_tokens import KeepGrid
from sightline.tokens.ia_red2 import IARED2
from sightline.tokens.random_tokens import KeepRandom
from sightline.tokens.registry import REDUCERS
from sightline.tokens.rlt import RLT
from sightline.tokens.spec import TokenReduction
from sightline.tokens.sta.sta import STA
from sightline.tokens.tome import ToMe
from sightline.tokens.tracing import KeptAt, kept_share, trace

__all__ = [
    "IARED2",
    "REDUCERS",
    "RLT",
    "STA",
    "KeepAttended",
    "KeepChanged",
    "KeepGrid",
    "KeepRandom",
    "KeptAt",
    "ToMe",
    "TokenReduction",
    "kept_share",
    "trace",
]
