"""Sizes of an MViTv2: what is chosen, and what follows from it for every layer."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.backbones.parts.relative_positions import Size3, table_rows


def pooled_size(grid: Size3, stride: Size3) -> Size3:
    """Return the grid after a convolution with padding and an odd kernel: whole strides, rounded up."""
    t, h, w = (-(-size // step) for size, step in zip(grid, stride, strict=True))
    return t, h, w


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer.

    Attributes:
        grid: Cells (T, H, W) before it.
        nominal_grid: The same with every pooling rounded down. torchvision gives tables of relative positions the
            lengths that fit this grid, and interpolates them where the real one differs.
        width_in: Width of the tokens before it.
        width: Width of the tokens after it.
        heads: Attention heads.
        stride_q: Stride of the pooling of queries, which is that of the layer.
        stride_kv: Stride of the pooling of keys and values.
        cell: Frames, rows and columns of the clip that a cell of ``grid`` stands for.
    """

    grid: Size3
    nominal_grid: Size3
    width_in: int
    width: int
    heads: int
    stride_q: Size3
    stride_kv: Size3
    cell: Size3

    @property
    def grid_after(self) -> Size3:
        return pooled_size(self.grid, self.stride_q)

    @property
    def key_grid(self) -> Size3:
        return pooled_size(self.grid, self.stride_kv)

    @property
    def key_cell(self) -> Size3:
        """Frames, rows and columns of the clip that a cell of ``key_grid`` stands for."""
        return _multiplied(self.cell, self.stride_kv)

    @property
    def removable(self) -> bool:
        """Whether what comes out has the shape of what goes in."""
        return self.grid_after == self.grid and self.width == self.width_in

    def spatial_rows(self) -> int:
        """Rows of the tables of height and width."""
        size = max(self.nominal_grid[1:])
        return table_rows(size // self.stride_q[1], size // self.stride_kv[1])

    def temporal_rows(self) -> int:
        """Rows of the table of time."""
        return table_rows(self.nominal_grid[0], self.nominal_grid[0])


def _divided(grid: Size3, stride: Size3, least: int = 0) -> Size3:
    t, h, w = (max(size // step, least) for size, step in zip(grid, stride, strict=True))
    return t, h, w


def _multiplied(size: Size3, stride: Size3) -> Size3:
    t, h, w = (length * step for length, step in zip(size, stride, strict=True))
    return t, h, w


@dataclass(frozen=True)
class MViTConfig:
    """Architecture of an MViTv2.

    Attributes:
        frames: Frames per clip.
        size: Height and width of a clip in pixels.
        num_classes: Number of classes.
        patch: Stride of the patches in frames, rows, columns; they overlap, being 3x7x7 pixels large.
        width: Channels of the first stage; doubled at each further stage.
        depths: Layers per stage.
        heads: Attention heads per layer of each stage.
        stage_stride: Pooling (T, H, W) in the first layer of each further stage.
        kv_stride: Pooling (T, H, W) of keys and values in the first stage; divided by ``stage_stride`` at each
            further one.
        mlp_ratio: Width of the MLP relative to the tokens'.
        drop_path: Largest stochastic depth rate; layers get it in proportion to their depth.
        dropout: Dropout rate before the classifier.
        residual_follows_head: Whether the pooled query is part of a head, so that it is ablated and removed with it.
    """

    frames: int = 16
    size: int = 224
    num_classes: int = 400
    patch: Size3 = (2, 4, 4)
    width: int = 96
    depths: tuple[int, ...] = (1, 2, 11, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    stage_stride: Size3 = (1, 2, 2)
    kv_stride: Size3 = (1, 8, 8)
    mlp_ratio: float = 4.0
    drop_path: float = 0.2
    dropout: float = 0.5
    residual_follows_head: bool = False

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.heads) or min(self.depths) < 1:
            raise ValueError(
                f"depths {self.depths} and heads {self.heads} must name the same number of stages; each takes a layer."
            )
        for stage, heads in enumerate(self.heads):
            if heads < 1 or self.width * 2**stage % heads:
                raise ValueError(
                    f"heads must divide the width of their stage, got {heads} heads for a width of "
                    f"{self.width * 2**stage} in stage {stage}."
                )
        for name in ("patch", "stage_stride", "kv_stride"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise ValueError(f"{name} must be three positive integers (frames, rows, columns), got {value}.")
        if any(step > 1 and step % 2 for step in self.stage_stride):
            # The skip path's kernel is one larger than the stride; where that is even it gives another grid.
            raise ValueError(f"stage_stride must consist of 1 and even numbers, got {self.stage_stride}.")
        self._check_size()

    def _check_size(self) -> None:
        t, h, w = self.patch
        if self.frames < 1 or self.size < 1 or self.frames % t or self.size % h or self.size % w:
            raise ValueError(
                f"MViT cuts clips into patches of {self.patch}: frames must be a multiple of {t} and size of {h} and "
                f"{w}, got {self.frames} frames of {self.size} pixels."
            )
        last = self.layer_shapes()[-1]
        if min(size // step for size, step in zip(last.nominal_grid, last.stride_q, strict=True)) < 1:
            further = len(self.depths) - 1
            least = [p * s**further for p, s in zip(self.patch, self.stage_stride, strict=True)]
            raise ValueError(
                f"MViT pools its patches {further} times by {self.stage_stride}: this takes {least[0]} frames of "
                f"{max(least[1:])} pixels at least, got {self.frames} frames of {self.size} pixels."
            )

    def layer_shapes(self) -> list[LayerShape]:
        """Return the sizes of every layer, in order."""
        shapes = []
        grid = nominal = _divided((self.frames, self.size, self.size), self.patch)
        width, kv, cell = self.width, self.kv_stride, self.patch
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            for place in range(depth):
                pools = stage > 0 and place == 0
                stride = self.stage_stride if pools else (1, 1, 1)
                if pools:
                    kv = _divided(kv, stride, least=1)
                wider = self.width * 2**stage
                shapes.append(LayerShape(grid, nominal, width, wider, heads, stride, kv, cell))
                grid, nominal, width = pooled_size(grid, stride), _divided(nominal, stride), wider
                cell = _multiplied(cell, stride)
        return shapes

    def stage_of_layer(self) -> list[int]:
        """Return the stage of every layer, in order."""
        return [stage for stage, depth in enumerate(self.depths) for _ in range(depth)]
