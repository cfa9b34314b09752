"""The token reductions that can be asked for by name. A reducer registers here and nowhere else."""

from __future__ import annotations

from sightline.tokens.random_tokens import KeepRandom
from sightline.tokens.token_reducer import TokenReducer
from sightline.tokens.tome import ToMe

# A reducer is a frozen dataclass; its fields, all with defaults, are its options.
REDUCERS: dict[str, type[TokenReducer]] = {"random": KeepRandom, "tome": ToMe}
