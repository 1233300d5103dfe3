"""SAM ViT-B, the first vision encoder of both models.

Twelve layers, of which four see the whole picture and the others windows of 14 x 14 patches; two
convolutions of stride 2 then leave a sixteenth of the tokens. Parameters have their official names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor, nn

from worker.engine.deepseek.config import SamConfig

EPS = 1e-6


class ChannelNorm(nn.Module):
    """A layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, EPS).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Attention over a grid of patches, with positions relative in height and in width."""

    def __init__(self, config: SamConfig, grid: int) -> None:
        super().__init__()
        self.heads, self.size = config.heads, config.head_size
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * grid - 1, self.size))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * grid - 1, self.size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same.

        The bias of query and key is `q.Rh[qy - ky] + q.Rw[qx - kx]`. Written as a matrix it takes
        400 MB a picture of 1024 pixels. So each query carries its products with all rows and all
        columns, and each key says by ones which row and column are its own.
        """
        batch, height, width, channels = x.shape
        q, k, v = self._heads(self.qkv(x))
        rows = torch.einsum("bnyxd,ykd->bnyxk", q, _relative(self.rel_pos_h, height))
        columns = torch.einsum("bnyxd,xkd->bnyxk", q, _relative(self.rel_pos_w, width))
        q = torch.cat([q * self.size**-0.5, rows, columns], -1)
        k = torch.cat([k, _places(k)], -1)
        v = F.pad(v, (0, height + width))  # kernels that keep no matrix want all three alike
        out = F.scaled_dot_product_attention(q.flatten(2, 3), k.flatten(2, 3), v, scale=1.0)
        out = out[..., : self.size]
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, channels))

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q and k as (B, heads, H, W, size), v as (B, heads, H * W, size)."""
        batch, height, width, _ = qkv.shape
        split = qkv.view(batch, height, width, 3, self.heads, self.size)
        q, k, v = split.permute(3, 0, 4, 1, 2, 5).unbind(0)
        return q, k, v.flatten(2, 3)


def _relative(table: Tensor, size: int) -> Tensor:
    """(2n - 1, d), of any n, to (size, size, d): the entry for each pair of query and key."""
    if table.shape[0] != 2 * size - 1:
        stretched = F.interpolate(table.T[None].float(), size=2 * size - 1, mode="linear")
        table = stretched[0].T.to(table.dtype)
    at = torch.arange(size, device=table.device)
    return table[at[:, None] - at + size - 1]


def _places(k: Tensor) -> Tensor:
    """For each key a one at its row and a one at its column: (B, heads, H, W, H + W)."""
    *outer, height, width, _ = k.shape
    rows = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    columns = torch.eye(width, dtype=k.dtype, device=k.device).expand(height, -1, -1)
    return torch.cat([rows, columns], -1).expand(*outer, -1, -1, -1)


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, 4 * width)
        self.lin2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """One layer; `window` patches a side see each other, all of them where it is 0."""

    def __init__(self, config: SamConfig, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.width, EPS)
        self.attn = Attention(config, window or config.grid)
        self.norm2 = nn.LayerNorm(config.width, EPS)
        self.mlp = Mlp(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        attend = self._in_windows if self.window else self.attn
        x = x + attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _in_windows(self, x: Tensor) -> Tensor:
        """What pads the last windows is seen like everything else: so the model was trained."""
        batch, height, width, channels = x.shape
        side = self.window
        down, across = -(-height // side), -(-width // side)
        x = F.pad(x, (0, 0, 0, across * side - width, 0, down * side - height))
        x = x.view(batch, down, side, across, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side, side, channels))
        x = x.view(batch, down, across, side, side, channels).transpose(2, 3)
        return x.reshape(batch, down * side, across * side, channels)[:, :height, :width]


class PatchEmbedding(nn.Module):
    """16 x 16 pixels to one vector."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S / 16, S / 16, C)."""
        return self.proj(pixels).permute(0, 2, 3, 1)


class Sam(nn.Module):
    """Pixels to (B, C, n, n) with n a 64th of the side."""

    def __init__(self, config: SamConfig, channels: int) -> None:
        """`channels` is C."""
        super().__init__()
        middle, window = config.downsample_channels[0], config.window_size
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = nn.Parameter(torch.empty(1, config.grid, config.grid, config.width))
        self.blocks = nn.ModuleList(
            Block(config, 0 if number in config.global_attn_indexes else window)
            for number in range(config.layers)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, config.neck, 1, bias=False),
            ChannelNorm(config.neck),
            nn.Conv2d(config.neck, config.neck, 3, padding=1, bias=False),
            ChannelNorm(config.neck),
        )
        self.net_2 = nn.Conv2d(config.neck, middle, 3, 2, 1, bias=False)
        self.net_3 = nn.Conv2d(middle, channels, 3, 2, 1, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """`pixels` is (B, 3, S, S) in -1..1."""
        x = self.patch_embed(pixels)
        x = x + resized(self.pos_embed, x.shape[1])
        for block in self.blocks:
            x = block(x)
        return self.net_3(self.net_2(self.neck(x.permute(0, 3, 1, 2))))


def resized(table: Tensor, side: int) -> Tensor:
    """A table of positions (1, n, n, C) as (1, side, side, C)."""
    if table.shape[1] == side:
        return table
    wide = table.permute(0, 3, 1, 2).float()
    wide = F.interpolate(wide, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return wide.to(table.dtype).permute(0, 2, 3, 1)
