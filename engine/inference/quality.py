"""What a precision costs: bits per byte of the native step itself, which is what people will talk to.

The same number that training reports, so a model in int8 can be held against its float32 self.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from engine.inference.native import NativeStepper


def stepped_bits_per_byte(
    stepper: NativeStepper, batches: Iterable[tuple[Tensor, Tensor]], token_bytes: Tensor
) -> float:
    """As `bits_per_byte`, token by token: pairs (x, y) of ids, each (B, T); targets below 0 do not count.

    token_bytes: (V,) bytes of each token, 0 for special tokens, which do not count either.
    """
    nats, n_bytes = 0.0, 0
    for x, y in batches:
        for ids, targets in zip(x, y, strict=True):
            logits = stepper.score(ids.tolist(), stepper.cache(len(ids)))
            length = token_bytes[targets.clamp(min=0)] * (targets >= 0)
            loss = F.cross_entropy(logits, targets.long(), ignore_index=-1, reduction="none")
            nats += float(loss[length > 0].sum())
            n_bytes += int(length.sum())
    return nats / (math.log(2) * n_bytes) if n_bytes else math.inf
