"""Keep memory that a training step frees, for the next step to take: on a CPU with glibc, large blocks otherwise go
back to the system at every release, and each new one has to be cleared page by page."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in glibc's malloc.h
_LARGEST = 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Tell malloc; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _LARGEST) and mallopt(_MMAP_THRESHOLD, _LARGEST))
