"""ViT: a small vision transformer, trained from scratch (Dosovitskiy et al., ICLR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd_bench.models.network import Network


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer MLP. Each has a LayerNorm before it and a residual connection."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float):
        """Build a block for t tokens per image, `(n, t, dim)`."""
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention of t tokens per image, `(n, t, dim)`.

        PyTorch's fused kernels are not used: they have no second derivative, which gradient matching needs.
        """
        n, t, dim = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, heads, t, dim / heads)
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        out: Tensor = self.project((weights @ v).transpose(1, 2).reshape(n, t, dim))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return t tokens per image, `(n, t, dim)`."""
        x = x + self.attend(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(Network):
    """Linear patch embedding, a class token, learned positions, and `depth` encoder blocks.

    The embedding is the class token after the last LayerNorm. In train mode, dropout draws from the global generator;
    `vmap` therefore requires `randomness="different"`.
    Reference: DataDistillation/DataDAM@714d91c networks.py: patch 4, dim 512, depth 6, 8 heads of 64, MLP
    512, dropout 0.1 in the blocks and after the positions, none on the attention weights.
    Deviations: any number of channels; the reference supports only three.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
        emb_dropout: float,
    ):
        """Build the network for images `(c, h, w)`.

        Args:
            patch: side of the square patches, in pixels.
            dim: size of a token.
            depth: number of encoder blocks.
            heads: number of attention heads, each of size `dim / heads`.
            mlp_dim: number of hidden units of the MLP in each block.
            dropout: dropout probability in the blocks.
            emb_dropout: dropout probability of the embedded patches.

        Raises:
            ValueError: `patch` does not divide the image, or `heads` does not divide `dim`.
        """
        super().__init__()
        channels, height, width = image_shape
        if height % patch or width % patch:
            raise ValueError(
                f"model.patch must divide the image size {height}x{width}, got {patch}. "
                "Use another model.patch or model=convnet"
            )
        if dim % heads:
            raise ValueError(
                f"model.heads must divide model.dim={dim}, got {heads}. Example: model.dim=512 model.heads=8"
            )
        tokens = (height // patch) * (width // patch)
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 1 + tokens, dim))
        self.dropout = nn.Dropout(emb_dropout)
        self.blocks = nn.Sequential(*[EncoderBlock(dim, heads, mlp_dim, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """See `Network`; there are no maps."""
        x = self.patches(x).flatten(2).transpose(1, 2)  # (n, tokens, dim)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        x = self.blocks(self.dropout(x + self.positions))
        return [], self.norm(x[:, 0])
