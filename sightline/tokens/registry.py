"""The token reductions that can be asked for by name. A reducer registers here and nowhere else."""

from __future__ import annotations

from sightline.backbones.contract.reducer import Reducer
from sightline.tokens.random_tokens import KeepRandom

# A reducer is a frozen dataclass; its fields, all with defaults, are its options.
REDUCERS: dict[str, type[Reducer]] = {"random": KeepRandom}
