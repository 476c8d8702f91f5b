"""Several networks as one: their maps of features side by side, and the mean of the ranks that their logits have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVELS = 33
"""Quantiles that are kept of each network's logits on the reference images: what a rank is told by."""
LEAST_STEP = 1e-3
"""Between two quantiles of a logit: a network that says the same of every image has ranks even so."""


class SideBySide(nn.Module):
    """The maps of several trunks, one after the other along the channels."""

    def __init__(self, trunks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, channels of all, h, w]."""
        return torch.cat([trunk(x) for trunk in self.trunks], dim=1)


class RankMean(nn.Module):
    """One logit a finding from several networks': the mean of their ranks among reference images, as a logit again.

    A rank is read off each network's quantiles, straight lines between them and on beyond the ends, so that order is
    kept; the mean rank is given back the mean of the networks' quantiles there, so that one temperature calibrates it
    as it does a single network. Networks that are alike give their own logit.

    bias: [members, findings], of the networks' heads. quantiles: [members, findings, LEVELS] of their logits.
    """

    bias: Tensor
    quantiles: Tensor

    def __init__(self, members: int, findings: int) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(members, findings))
        self.register_buffer("quantiles", torch.linspace(-1, 1, LEVELS).repeat(members, findings, 1))

    @classmethod
    def of(cls, biases: Sequence[Tensor], logits: Tensor) -> RankMean:
        """For heads of these biases [findings], whose logits on the reference images are [members, n, findings]."""
        ranks = cls(*logits[:, 0].shape)
        found = torch.quantile(logits.float(), torch.linspace(0, 1, LEVELS), dim=1).permute(1, 2, 0)
        steps = found.diff(dim=-1).clamp(min=LEAST_STEP)
        ranks.quantiles.copy_(torch.cat([found[..., :1], found[..., :1] + steps.cumsum(-1)], dim=-1))
        ranks.bias.copy_(torch.stack([bias.detach() for bias in biases]))
        return ranks

    def forward(self, logits: Tensor) -> Tensor:
        """The joint logits [n, findings] of [members, n, findings]."""
        return self.joint(logits)[0]

    def joint(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The joint logits [n, findings], and how they change with each network's, [members, n, findings]."""
        x = logits.float().transpose(1, 2).contiguous()  # [members, findings, n]
        low, high, place = self._between(x)
        ranks = place + (x - low) / (high - low)
        mean, quantiles = ranks.mean(0), self.quantiles.mean(0)
        at = mean.floor().clamp(0, LEVELS - 2)
        left, right = quantiles.gather(1, at.long()), quantiles.gather(1, at.long() + 1)
        steep = (right - left) / (high - low) / len(logits)
        return (left + (mean - at) * (right - left)).T, steep.transpose(1, 2)

    def _between(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The quantiles below and above each logit (the outermost two beyond the ends), and the number of the lower."""
        place = (torch.searchsorted(self.quantiles, x) - 1).clamp(0, LEVELS - 2)
        return self.quantiles.gather(2, place), self.quantiles.gather(2, place + 1), place
