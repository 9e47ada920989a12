"""Where training text can be had: names of the public shards, and how many there are. Nothing is fetched here."""

from __future__ import annotations

import os
from dataclasses import dataclass

BASE_URL = "LLMCONSOLE_DATA_URL"  # environment: a mirror that serves the same file names


@dataclass(frozen=True)
class ShardSource:
    """Text in numbered parquet shards of about 250 million characters, as nanochat's two data sets are."""

    name: str
    repo: str
    shards: int
    last_is_validation: bool  # whatever was asked for, the very last shard comes, too: the one to validate on
    shard_bytes: int = 100_000_000  # about

    def numbers(self, count: int | None) -> list[int]:
        """Which shards `count` means, as nanochat's `-n` does; None: all."""
        wanted = list(range(self.shards if count is None else min(count, self.shards)))
        if self.last_is_validation and self.shards - 1 not in wanted:
            wanted.append(self.shards - 1)
        return wanted

    def url(self, base_url: str | None, name: str, endpoint: str) -> str:
        """The address of a shard: below a mirror, or on the Hub."""
        mirror = base_url or os.environ.get(BASE_URL)
        return f"{(mirror or f'{endpoint}/datasets/{self.repo}/resolve/main').rstrip('/')}/{name}"


SHARD_SOURCES = {
    source.name: source
    for source in (
        ShardSource("fineweb_edu", "karpathy/fineweb-edu-100b-shuffle", 1823, last_is_validation=False),
        ShardSource("climbmix", "karpathy/climbmix-400b-shuffle", 6543, last_is_validation=True),
    )
}


def shard_name(number: int) -> str:
    return f"shard_{number:05d}.parquet"
