"""S2S++ in torch. Shape suffixes: B items (one object each), T frames, C channels, H x W the model's grid."""

from model.network.s2spp import ClipOutput, S2Spp, with_gradient
from model.network.state import RecurrentState

__all__ = ["ClipOutput", "RecurrentState", "S2Spp", "with_gradient"]
