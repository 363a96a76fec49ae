"""SeaFormer in Paddle: the four networks that are missing from PaddleSeg's last release (2.8.0).

Paper: Wan, Huang, Lu, Yu, Zhang, "SeaFormer: Squeeze-enhanced Axial Transformer for Mobile Semantic
Segmentation", ICLR 2023, https://arxiv.org/abs/2301.13156. The sizes are those published for ADE20K
(PaddleSeg `configs/seaformer`, https://github.com/fudan-zvg/SeaFormer).

Two branches share the first three strides: the detail branch stays at 1/8, and the context branch
continues to 1/64 with axial attention. In the head, each context map gates the detail map.

Height and width are read from the tensors, and reshapes use batch and length as run-time values.
The exported program therefore contains the same dynamic shape arithmetic as the published models.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

# Learned positions per squeezed axis; other lengths are interpolated from them.
_POSITIONS = 16


@dataclass(frozen=True)
class Axial:
    """A run of axial transformer blocks at the end of a stage.

    Attributes:
        depth: Number of blocks.
        key_dim: Channels of the query and key of one head; its value has twice as many.
        mlp_ratio: Ratio of the hidden channels of the feed-forward part to those of the stage.
    """

    depth: int
    key_dim: int
    mlp_ratio: int


@dataclass(frozen=True)
class Stage:
    """One stage of the backbone.

    Attributes:
        convs: Inverted residuals as (kernel, expansion, out channels, stride).
        axial: The transformer blocks that follow; None for the first, purely convolutional stages.
    """

    convs: tuple[tuple[int, int, int, int], ...]
    axial: Axial | None = None

    @property
    def channels(self) -> int:
        """Channels of the stage's output."""
        return self.convs[-1][2]


@dataclass(frozen=True)
class Variant:
    """The sizes of one SeaFormer.

    Attributes:
        stem: Channels of the first convolution (stride 2).
        stages: The backbone; the second stage ends at stride 8 and outputs the detail map.
        heads: Attention heads of every transformer block.
        fusion: Channels of the detail map after each fusion, one per stage that has a transformer.
    """

    stem: int
    stages: tuple[Stage, ...]
    heads: int
    fusion: tuple[int, ...]


VARIANTS = {
    "tiny": Variant(
        stem=16,
        stages=(
            Stage(((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1))),
            Stage(((5, 3, 32, 2), (5, 3, 32, 1))),
            Stage(((3, 3, 64, 2), (3, 3, 64, 1))),
            Stage(((5, 3, 128, 2),), Axial(depth=2, key_dim=16, mlp_ratio=2)),
            Stage(((3, 6, 160, 2),), Axial(depth=2, key_dim=24, mlp_ratio=4)),
        ),
        heads=4,
        fusion=(64, 96),
    ),
    "small": Variant(
        stem=16,
        stages=(
            Stage(((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1))),
            Stage(((5, 3, 48, 2), (5, 3, 48, 1))),
            Stage(((3, 3, 96, 2), (3, 3, 96, 1))),
            Stage(((5, 4, 160, 2),), Axial(depth=3, key_dim=16, mlp_ratio=2)),
            Stage(((3, 6, 192, 2),), Axial(depth=3, key_dim=24, mlp_ratio=4)),
        ),
        heads=6,
        fusion=(96, 128),
    ),
    "base": Variant(
        stem=16,
        stages=(
            Stage(((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1))),
            Stage(((5, 3, 64, 2), (5, 3, 64, 1))),
            Stage(((3, 3, 128, 2), (3, 3, 128, 1))),
            Stage(((5, 4, 192, 2),), Axial(depth=4, key_dim=16, mlp_ratio=2)),
            Stage(((3, 6, 256, 2),), Axial(depth=4, key_dim=24, mlp_ratio=4)),
        ),
        heads=8,
        fusion=(128, 160),
    ),
    "large": Variant(
        stem=32,
        stages=(
            Stage(((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1))),
            Stage(((5, 4, 128, 2), (5, 4, 128, 1))),
            Stage(((3, 4, 192, 2), (3, 4, 192, 1)), Axial(depth=3, key_dim=16, mlp_ratio=2)),
            Stage(((5, 4, 256, 2),), Axial(depth=3, key_dim=20, mlp_ratio=4)),
            Stage(((3, 6, 320, 2),), Axial(depth=3, key_dim=24, mlp_ratio=6)),
        ),
        heads=8,
        fusion=(128, 160, 192),
    ),
}


def _conv_norm(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution without bias and with "same" padding, then batch norm."""
    return nn.Sequential(
        nn.Conv2D(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias_attr=False,
        ),
        nn.BatchNorm2D(outputs),
    )


class _InvertedResidual(nn.Layer):
    """MobileNetV2's block: 1x1 expansion, depthwise filter, 1x1 projection (arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [] if expansion == 1 else [_conv_norm(inputs, hidden), nn.ReLU()]
        self.body = nn.Sequential(
            *widen,
            _conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            nn.ReLU(),
            _conv_norm(hidden, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.residual else y


class _Positions(nn.Layer):
    """Learned positions along one axis, interpolated linearly to its length and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.table = self.create_parameter([1, channels, _POSITIONS])

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]
        return x + F.interpolate(
            self.table, size=[length], mode="linear", align_corners=False, data_format="NCW"
        )


class _AxisAttention(nn.Layer):
    """Self-attention between the rows, or the columns, of a map averaged over the other axis."""

    def __init__(self, heads: int, key_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = key_dim**-0.5
        self.values = 2 * key_dim * heads
        self.query_positions = _Positions(key_dim * heads)
        self.key_positions = _Positions(key_dim * heads)
        self.project = nn.Sequential(nn.ReLU6(), _conv_norm(self.values, self.values))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, across: int) -> Tensor:
        """Attend along one axis.

        Args:
            query: (N, heads * key_dim, H, W); `key` has the same shape, `value` twice the channels.
            across: The axis to average over: 3 to attend between rows, 2 between columns.

        Returns:
            (N, 2 * heads * key_dim, H, 1) or (N, ..., 1, W): broadcasts against `value`.
        """
        batch, length = value.shape[0], value.shape[5 - across]
        split = [batch, self.heads, -1, length]
        q = self.query_positions(query.mean(across)).reshape(split).transpose([0, 1, 3, 2])
        k = self.key_positions(key.mean(across)).reshape(split)
        v = value.mean(across).reshape(split).transpose([0, 1, 3, 2])
        weights = F.softmax(paddle.matmul(q, k) * self.scale, axis=-1)
        y = paddle.matmul(weights, v).transpose([0, 1, 3, 2])
        shape = [batch, self.values, length, 1] if across == 3 else [batch, self.values, 1, length]
        return self.project(y.reshape(shape))


class _AxialBlock(nn.Layer):
    """Squeeze-enhanced axial attention (section 3.2), then a feed-forward part with a 3x3."""

    def __init__(self, channels: int, heads: int, axial: Axial) -> None:
        super().__init__()
        keys, values = heads * axial.key_dim, 2 * heads * axial.key_dim
        hidden = channels * axial.mlp_ratio
        self.query = _conv_norm(channels, keys)
        self.key = _conv_norm(channels, keys)
        self.value = _conv_norm(channels, values)
        self.rows = _AxisAttention(heads, axial.key_dim)
        self.columns = _AxisAttention(heads, axial.key_dim)
        self.gate = nn.Sequential(nn.ReLU6(), _conv_norm(values, channels), nn.Hardsigmoid())
        # Detail enhancement: restores the local information lost by averaging rows and columns.
        detail = 2 * keys + values
        self.detail = nn.Sequential(
            _conv_norm(detail, detail, 3, groups=detail), nn.ReLU6(), _conv_norm(detail, channels)
        )
        self.feed_forward = nn.Sequential(
            _conv_norm(channels, hidden),
            nn.Conv2D(hidden, hidden, 3, padding=1, groups=hidden),
            nn.ReLU6(),
            _conv_norm(hidden, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        context = self.rows(q, k, v, 3) + self.columns(q, k, v, 2)
        x = x + self.gate(v + context) * self.detail(paddle.concat([q, k, v], axis=1))
        return x + self.feed_forward(x)


class _Fusion(nn.Layer):
    """The detail map, gated by a coarser context map (paper, section 3.1)."""

    def __init__(self, detail: int, context: int, outputs: int) -> None:
        super().__init__()
        self.detail = _conv_norm(detail, outputs)
        self.gate = nn.Sequential(_conv_norm(context, outputs), nn.Hardsigmoid())

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        gate = F.interpolate(
            self.gate(context), size=detail.shape[2:], mode="bilinear", align_corners=False
        )
        return self.detail(detail) * gate


class SeaFormer(nn.Layer):
    """SeaFormer with its light segmentation head.

    Args:
        variant: The sizes, one of `VARIANTS`.
        num_classes: Number of classes.
    """

    def __init__(self, variant: Variant, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_norm(3, variant.stem, 3, stride=2), nn.ReLU())
        self.stages = nn.LayerList()
        self.axials = nn.LayerList()
        self.fusions = nn.LayerList()
        channels, detail = variant.stem, variant.stages[1].channels
        for stage in variant.stages:
            convs = []
            for kernel, expansion, outputs, stride in stage.convs:
                convs.append(_InvertedResidual(channels, outputs, kernel, expansion, stride))
                channels = outputs
            self.stages.append(nn.Sequential(*convs))
            if stage.axial is not None:
                blocks = [
                    _AxialBlock(channels, variant.heads, stage.axial)
                    for _ in range(stage.axial.depth)
                ]
                self.axials.append(nn.Sequential(*blocks))
                fused = variant.fusion[len(self.fusions)]
                self.fusions.append(_Fusion(detail, channels, fused))
                detail = fused
        self.head = nn.Sequential(
            _conv_norm(detail, detail, groups=detail), nn.ReLU(), nn.Dropout2D(0.1)
        )
        self.classifier = nn.Conv2D(detail, num_classes, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the logits.

        Args:
            x: float32 (N, 3, H, W), RGB, (value / 255 - 0.5) / 0.5.

        Returns:
            A list of one tensor, as PaddleSeg's networks do: float32 (N, num_classes, H, W).
        """
        first_axial = len(self.stages) - len(self.axials)
        y = self.stem(x)
        contexts = []
        for i, stage in enumerate(self.stages):
            y = stage(y)
            if i == 1:
                detail = y
            if i >= first_axial:
                y = self.axials[i - first_axial](y)
                contexts.append(y)
        # Paddle can't trace keyword arguments of zip.
        for fusion, context in zip(self.fusions, contexts):  # noqa: B905
            detail = fusion(detail, context)
        logits = self.classifier(self.head(detail))
        return [F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)]


def build_seaformer(variant: str, num_classes: int) -> SeaFormer:
    """A SeaFormer whose weights are those of Paddle's initialisers.

    Example:
        >>> network = build_seaformer("tiny", 150)

    Args:
        variant: Key of `VARIANTS`.
        num_classes: Number of classes.
    """
    return SeaFormer(VARIANTS[variant], num_classes)
