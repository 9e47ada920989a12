"""Matrices made nearly orthogonal by a few products: Newton-Schulz as in nanochat's seed, Polar Express as it has now.

Sources: Keller Jordan et al., "Muon" (2024); Amsel et al., "The Polar Express" (2025). Only products of the matrix with
itself are needed, so bfloat16 is enough and a GPU runs them at full speed.
"""

from __future__ import annotations

from torch import Tensor

# Quintic a·x + b·x³ + c·x⁵, chosen for a steep slope at 0; it maps singular values into about [0.7, 1.2], not to 1.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

# One quintic per iteration, the best for the interval that the one before leaves (5 steps, 2 % safety, cushion 2).
_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def newton_schulz(X: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix to each of X (K, m, n), in X's precision."""
    a, b, c = _NEWTON_SCHULZ
    tall = X.size(-2) > X.size(-1)
    if tall:
        X = X.mT
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


def polar_express(X: Tensor, steps: int = 5) -> Tensor:
    """The same with per-step coefficients; the products are on the short side of X (K, m, n)."""
    X = X / (X.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    tall = X.size(-2) > X.size(-1)
    for a, b, c in _POLAR_EXPRESS[:steps]:
        A = X.mT @ X if tall else X @ X.mT
        B = b * A + c * (A @ A)
        X = a * X + (X @ B if tall else B @ X)
    return X
