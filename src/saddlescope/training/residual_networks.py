"""Residual networks for small images, each with or without batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from saddlescope._checks import refuse

Norm = Callable[[int], nn.Module]


def resnet(depth: int = 20, classes: int = 10, *, channels: int = 3, batch_norm: bool = True) -> nn.Sequential:
    """Return the CIFAR network of He et al. 2016, section 4.2: depth ``6 n + 2``, widths 16-32-64.

    Shortcuts have no parameters: where the width doubles, they take every second pixel and pad channels with 0.

    >>> sum(p.numel() for p in resnet(20).parameters())
    269722
    """
    if depth < 8 or depth % 6 != 2:
        raise refuse("depth", depth, "6 n + 2 with n >= 1", "use 8, 14, 20, ...")
    stages = [(width, (depth - 2) // 6) for width in (16, 32, 64)]
    return _residual(stages, classes, channels, batch_norm, projection=False)


def resnet18(classes: int = 10, *, channels: int = 3, batch_norm: bool = True) -> nn.Sequential:
    """Return ResNet-18 (He et al. 2016) with a 3x3 stem for small images: widths 64-128-256-512, two blocks each.

    >>> sum(p.numel() for p in resnet18().parameters())
    11173962
    """
    return _residual([(width, 2) for width in (64, 128, 256, 512)], classes, channels, batch_norm, projection=True)


def wide_resnet(
    depth: int = 28, widening: int = 10, classes: int = 10, *, channels: int = 3, batch_norm: bool = True
) -> nn.Sequential:
    """Return the wide residual network of Zagoruyko and Komodakis 2016: depth ``6 n + 4``, normalised before use.

    >>> sum(p.numel() for p in wide_resnet(16, 4).parameters())
    2748890
    """
    if depth < 10 or depth % 6 != 4:
        raise refuse("depth", depth, "6 n + 4 with n >= 1", "use 10, 16, 22, 28, ...")
    norm, inside = _norm(batch_norm), 16
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    for stage, width in enumerate(16 * 2**stage * widening for stage in range(3)):
        for block in range((depth - 4) // 6):
            layers.append(PreactivatedBlock(inside, width, 2 if stage and not block else 1, norm, bias=not batch_norm))
            inside = width
    return nn.Sequential(*layers, norm(inside), nn.ReLU(), *_head(inside, classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``relu(shortcut(x) + f(x))``."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm, *, bias: bool, projection: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=bias),
            norm(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=bias),
            norm(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inside != outside or stride != 1:
            self.shortcut = (
                nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=bias), norm(outside))
                if projection
                else _Subsample(outside - inside)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, outside, height / stride, width / stride)``."""
        return relu(self.shortcut(images) + self.body(images))


class PreactivatedBlock(nn.Module):
    """Two 3x3 convolutions, each after its normalisation and ReLU, beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Norm, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(inside), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=bias),
            norm(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=bias),
        )
        self.shortcut = None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, outside, height / stride, width / stride)``."""
        active = self.first(images)
        return self.body(active) + (images if self.shortcut is None else self.shortcut(active))


class _Subsample(nn.Module):
    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, images: Tensor) -> Tensor:
        return pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))


def _residual(
    stages: Sequence[tuple[int, int]], classes: int, channels: int, batch_norm: bool, *, projection: bool
) -> nn.Sequential:
    norm, inside, bias = _norm(batch_norm), stages[0][0], not batch_norm
    layers: list[nn.Module] = [nn.Conv2d(channels, inside, 3, padding=1, bias=bias), norm(inside), nn.ReLU()]
    for stage, (width, blocks) in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(ResidualBlock(inside, width, stride, norm, bias=bias, projection=projection))
            inside = width
    return nn.Sequential(*layers, *_head(inside, classes))


def _head(width: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


def _norm(batch_norm: bool) -> Norm:
    return nn.BatchNorm2d if batch_norm else _no_norm


def _no_norm(width: int) -> nn.Module:
    return nn.Identity()
