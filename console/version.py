"""Which llmconsole this is; asked only when somebody wants to know, because the answer costs start time."""

from __future__ import annotations


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("llmconsole")
    except PackageNotFoundError:  # run from a folder of sources that nobody installed
        return "0 (not installed)"
