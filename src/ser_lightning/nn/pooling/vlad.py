"""NetVLAD (Huang et al. 2020, eq. 1) and GhostVLAD (Mocanu et al. 2021)."""
# Shapes: B utterances, T frames (padded), D channels, K clusters, G ghost clusters.

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.nn.pooling.pooling import Pooling
from ser_lightning.nn.tensors import without_autocast


class NetVLAD(Pooling):
    """Sum each cluster's residuals, weighted by soft assignment: eq. 1, V(k) = sum_t a_k(x_t) (x_t - c_k).

    The residuals are never built, so memory does not grow with K * D * T: the sum is sum_t a_k(x_t) x_t minus
    c_k sum_t a_k(x_t). Each row V(k) is L2-normalised (intra-normalisation), then the whole matrix. The two terms
    nearly cancel if frames are close to a centre, so autocast is disabled.

    Args:
        input_dim: D.
        clusters: K; the number of classes if None.
    """

    def __init__(self, input_dim: int, clusters: int | None = None) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.clusters = clusters
        if clusters is not None:
            self._build(clusters)

    def fit_to_classes(self, num_classes: int) -> None:
        """Make one cluster for each class, unless their number is given."""
        if self.clusters is None:
            self._build(num_classes)

    def _build(self, clusters: int) -> None:
        if clusters < 1:
            raise ValueError(f"clusters is {clusters}; NetVLAD needs at least one")
        self.clusters = clusters
        self.output_dim = clusters * self.input_dim
        self.assignment = nn.Linear(self.input_dim, clusters)
        self.centres = nn.Parameter(torch.randn(clusters, self.input_dim) / self.input_dim**0.5)

    def _scores(self, frames: Tensor) -> Tensor:
        """Return the scores [B, T, K] of ``frames`` [B, T, D], whose softmax is the assignment."""
        scores: Tensor = self.assignment(frames)
        return scores

    def assign(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return the soft assignment [B, T, K + G] of ``frames`` [B, T, D] under ``mask`` [B, T], ghosts last."""
        with without_autocast(frames.device):
            assignment = self._scores(frames.to(self.centres.dtype)).softmax(2)
            return assignment.masked_fill(~mask.unsqueeze(2), 0.0)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Aggregate ``frames`` [B, T, D] under ``mask`` [B, T] to [B, K * D]."""
        with without_autocast(frames.device):
            frames = frames.to(self.centres.dtype)
            assignment = self.assign(frames, mask)[:, :, : self.clusters]
            weighted_sum = torch.einsum("btk,btd->bkd", assignment, frames)
            residuals = weighted_sum - assignment.sum(1).unsqueeze(2) * self.centres
            return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)


class GhostVLAD(NetVLAD):
    """NetVLAD with ghost clusters, which take part in the soft assignment and are dropped from the result.

    Ghosts absorb uninformative frames, such as noise. NetVLAD's weights load into it; only the ghosts' assignment is
    new.

    Args:
        input_dim: D.
        clusters: K; the number of classes if None.
        ghosts: G; 0 is NetVLAD.
    """

    def __init__(self, input_dim: int, clusters: int | None = None, ghosts: int = 0) -> None:
        if ghosts < 0:
            raise ValueError(f"ghosts is {ghosts}; GhostVLAD needs 0 or more")
        self.ghosts = ghosts
        super().__init__(input_dim, clusters)

    def _build(self, clusters: int) -> None:
        super()._build(clusters)
        self.ghost_assignment = nn.Linear(self.input_dim, self.ghosts) if self.ghosts else None

    def _scores(self, frames: Tensor) -> Tensor:
        scores = super()._scores(frames)
        return scores if self.ghost_assignment is None else torch.cat([scores, self.ghost_assignment(frames)], 2)
