"""Token reduction: which tokens a backbone goes on with, and a record of what was kept where."""

from sightline.tokens.random_tokens import KeepRandom
from sightline.tokens.registry import REDUCERS
from sightline.tokens.spec import TokenReduction
from sightline.tokens.tome import ToMe
from sightline.tokens.tracing import KeptAt, kept_share, trace

__all__ = ["REDUCERS", "KeepRandom", "KeptAt", "ToMe", "TokenReduction", "kept_share", "trace"]
