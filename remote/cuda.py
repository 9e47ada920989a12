"""Which NVIDIA driver a machine needs for the PyTorch that is installed there by default. One place says it.

The wheels of the pinned versions are built with CUDA 13.0 and 13.2. Within one major version NVIDIA's drivers run what
any minor release compiled, so the first driver that knows CUDA 13 at all is new enough for both. An older driver is no
end: `remote.bootstrap` then fetches another PyTorch that is made for it.
"""

from __future__ import annotations

TORCH_CUDA = "13.0"   # that the driver must know, as `major.minor`
OLDEST_DRIVER = 580   # the first major version of the driver that knows it
