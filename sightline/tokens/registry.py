"""The token reductions that can be asked for by name. A reducer registers here and nowhere else."""

from __future__ import annotations

from sightline.tokens.random_tokens import KeepRandom
from sightline.tokens.sta import STA
from sightline.tokens.token_reducer import TokenReducer

# A reducer is a frozen dataclass; its fields, all with defaults, are its options.
REDUCERS: dict[str, type[TokenReducer]] = {
    "random": KeepRandom,
    "sta": STA,
}
