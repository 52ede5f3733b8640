"""Which GELU does this model really use? Found by running it, not by its name."""

import torch
from torch import nn

import softknee


class Block(nn.Module):
    """Someone's feed-forward block: the activation is written by hand."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x):
        h = self.up(x)
        return self.down(0.5 * h * (1 + torch.tanh(0.7978845608 * (h + 0.044715 * h**3))))


print(softknee.identify(Block(), torch.randn(4, 16)))
