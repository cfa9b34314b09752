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
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.state import TokenState
from sightline.types import LayerInfo, Site


class Layer(nn.Module, ABC):
    """One layer: its attention sites in order, then its MLP. `run_steps` runs them.

    A family subclasses this and keeps its modules under the names of the implementation whose checkpoints users own.

    Attributes:
        index: Original index.
        stage: Index of the stage that it belongs to.
        removable: Whether it can be cut out.
        reason: Why not.
        fills_first: Whether it begins by filling a grid with dropped tokens for good, because it changes the grid.
    """

    index: int
    stage: int
    removable: bool = True
    reason: str = ""
    fills_first: bool = False

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """The attention sites in the order in which they run."""

    @abstractmethod
    def attend(
        self,
        state: TokenState,
        site: str,
        weights: bool = False,
        keys: bool = False,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        """Compute the heads of one site from the state before it.

        Where tokens were dropped, heads stand in the order of the tokens that are left.

        Args:
            state: Before the site.
            site: Name of the site.
            weights: Also return the softmax weights; attention is not fused then.
            keys: Also return the keys, group by group.
            features: What else to return of each token, see `HeadOutputs.features`.
        """

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

    def shortcut(self, state: TokenState) -> TokenState:
        """Return what is left of the layer when it is ablated: the identity, except where it changes the grid."""
        return state

    def info(self) -> LayerInfo:
        return LayerInfo(self.index, self.stage, self.sites, self.removable, self.reason)
