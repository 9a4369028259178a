"""A small U-Net."""

import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net from ``before`` to ``after`` planes: two convolutions at each resolution, down and up again.

    ``channels`` are those of each resolution, the finest first; sizes halve from one to the next. The last
    convolution, and so the output, is zero at first.
    """

    def __init__(self, before, after, channels):
        super().__init__()
        self.down = nn.ModuleList(
            _two_convolutions(first, second)
            for first, second in zip((before, *channels[:-1]), channels, strict=True)
        )
        self.up = nn.ModuleList(
            _two_convolutions(deep + shallow, shallow)
            for shallow, deep in zip(channels[:-1], channels[1:], strict=True)
        )
        self.last = nn.Conv2d(channels[0], after, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        # 25 % faster on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, planes):
        """Planes (B, before, ny, nx) to planes (B, after, ny, nx)."""
        levels, planes = [], planes.contiguous(memory_format=torch.channels_last)
        for pair in self.down:
            planes = pair(max_pool2d(planes, 2, ceil_mode=True) if levels else planes)
            levels.append(planes)
        for pair, level in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            planes = interpolate(planes, size=level.shape[-2:], mode="nearest")
            planes = pair(torch.cat([planes, level], 1))
        return self.last(planes)


def _two_convolutions(before, after):
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU()
    )
