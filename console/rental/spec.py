"""A rental and an offer become the exact request for a pod: name with its deadline, image, key, start command.

Pure but for the key pair, which is made once per rental and never leaves this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from console.machines.stage_secrets import as_environment
from console.rental.rental import Rental
from remote.provider import Offer, PodSpec, pod_name

if TYPE_CHECKING:
    from console.paths import Home

API_VARIABLE = "LLMCONSOLE_RUNPOD_API"  # another address of the provider's API, as the demo and tests have it


def compose(rental: Rental, offer: Offer, *, public_key: str, now: float) -> PodSpec:
    """The pod as it is asked for. Nothing in it is secret: everything can be read back from the provider."""
    from remote.runpod.deadline import API, start_command

    hours = min(rental.budget_hours, rental.budget_usd / offer.usd_per_hour if offer.usd_per_hour else 1e9)
    deadline = now + hours * 3600
    detail = rental.detail
    return PodSpec(
        name=pod_name(rental.run, deadline), image=str(detail["image"]), gpu=offer.gpu, count=offer.count,
        command=start_command(deadline, api=os.environ.get(API_VARIABLE) or API), public_key=public_key,
        cloud=offer.cloud, data_centers=(offer.data_center,) if offer.data_center else (),
        min_cuda=str(detail["want"]["min_cuda"]), disk_gb=int(detail["disk_gb"]),
        env=as_environment(detail.get("secrets") or {}))


def compose_with_key(home: Home, now: Callable[[], float]) -> Callable[[Rental, Offer], PodSpec]:
    """`compose` with the rental's own key pair, made when it is not there."""

    def make(rental: Rental, offer: Offer) -> PodSpec:
        from remote.ssh.keys import make_key

        public_key = make_key(home.keys / rental.id, comment=rental.id)
        return compose(rental, offer, public_key=public_key, now=now())

    return make
