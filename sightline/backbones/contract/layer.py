"""One layer of a backbone: attention sites, then an MLP, each of which can be entered by itself.

Ablating head h of a site means A_h = 0, hence H_h = A_h V_h = 0 in the concatenation before the output projection;
everything else, the projection's bias too, stays.

Shapes: B clips, N tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import Tensor, nn

from sightline.backbones.contract.layout import AttentionLayout
from sightline.backbones.contract.observation import Gates, HeadOutputs, Observer
from sightline.backbones.contract.state import TokenState
from sightline.types import LayerInfo, Site


class Layer(nn.Module, ABC):
    """One layer: its attention sites in order, then its MLP; each can be entered separately.

    A family subclasses this and keeps its modules under the names of the implementation whose checkpoints users own.
    """

    index: int
    stage: int
    removable: bool = True
    reason: str = ""

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """The attention sites in the order in which they run."""

    @abstractmethod
    def attend(self, state: TokenState, site: str, observer: Observer | None = None) -> HeadOutputs:
        """Compute the heads of one site from the state before it."""

    @abstractmethod
    def project(self, state: TokenState, site: str, attended: HeadOutputs) -> TokenState:
        """Return the state after a site: output projection and residual connection; affine in the heads."""

    @abstractmethod
    def contribution(self, state: TokenState, site: str, attended: HeadOutputs, position: int) -> Tensor:
        """Return what the head at ``position`` adds to the tokens after the site in evaluation mode, (B, N, D)."""

    @abstractmethod
    def mlp_step(self, state: TokenState) -> TokenState:
        """Return the state after the MLP and its residual connection."""

    @abstractmethod
    def layout(self, state: TokenState, site: str) -> AttentionLayout:
        """Return where the keys of a site lie, and which queries a map reads, from the state before it."""

    @abstractmethod
    def remove_heads(self, site: str, positions: Collection[int]) -> None:
        """Delete the parameters of the heads at these positions of the site."""

    def attend_class(self, state: TokenState, site: str) -> HeadOutputs:
        """Compute the heads of the last site where nothing will be read but class tokens, in evaluation mode.

        A family whose classifier reads these alone overrides this to compute no others. `project` then returns, and
        `contribution` refers to, a state of class tokens alone.
        """
        return self.attend(state, site)

    def resume(self, state: TokenState, place: int = 0, class_only: bool = False) -> TokenState:
        """Run what follows inside the layer: the sites from ``place`` on, then the MLP.

        Args:
            state: Before that site, or before the MLP where no site is left.
            place: How many sites have run.
            class_only: Whether only class tokens are read of what comes out, so that no others need be computed.
        """
        sites = self.sites
        for number in range(place, len(sites)):
            name = sites[number].name
            last = class_only and number + 1 == len(sites)
            attended = self.attend_class(state, name) if last else self.attend(state, name)
            state = self.project(state, name, attended)
        return self.mlp_step(state.only_class_tokens() if class_only else state)

    def shortcut(self, state: TokenState) -> TokenState:
        """Return what is left of the layer when it is ablated: the identity, except where it changes the grid."""
        return state

    def info(self) -> LayerInfo:
        return LayerInfo(self.index, self.stage, self.sites, self.removable, self.reason)

    def forward(self, state: TokenState, gates: Gates | None = None, observer: Observer | None = None) -> TokenState:
        for site in self.sites:
            attended = self.attend(state, site.name, observer)
            gate = gates.get((self.index, site.name)) if gates else None
            if gate is not None:
                attended = attended.gated(gate)
            if observer is not None and observer.heads:
                observer.site(self.index, site.name).heads = attended.heads
            if observer is not None and (observer.attention or observer.keys):
                observer.site(self.index, site.name).layout = self.layout(state, site.name)
            state = self.project(state, site.name, attended)
        return self.mlp_step(state)
