"""What renting would mean, worked out before anything is asked for: offers, price, time, budget, the exact request.

The rent sheet and `run start --dry-run` show a Quote; `console.rental.rentals` carries exactly it out. Making one asks
the provider for its catalogue and changes nothing there or here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from console.errors import UsageProblem
from console.plan import Plan, chosen_recipe, cli_line, plan_for
from console.rental.rental import reserve_s
from console.settings import RentSettings
from engine.rundir import new_run_id
from remote.provider import Account, Offer, Provider, Want, candidates

GPUS = {
    "H100": ("NVIDIA H100 80GB HBM3",), "H100-PCIE": ("NVIDIA H100 PCIe",), "H100-NVL": ("NVIDIA H100 NVL",),
    "H200": ("NVIDIA H200",), "B200": ("NVIDIA B200",), "B300": ("NVIDIA B300 SXM6 AC",),
    "A100": ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
}
CLOUDS = {"secure": ("SECURE",), "community": ("COMMUNITY",), "any": ("SECURE", "COMMUNITY")}
POD_BASE = "~/nanochat"  # on the pod's own disk
_COUNTED = re.compile(r"(?:(\d{1,2})\s*[x×*]\s*)?(.+)", re.IGNORECASE)
_UNMEASURED_H = 4.0  # for a recipe that nobody has timed on such a machine


@dataclass(frozen=True)
class Quote:
    """`plan` is the run as it will be; its problems forbid renting. `hours` is the expected time, setting up included.

    `limit_hours` is after how long one of both budgets is used up at the price of the best offer.
    """

    plan: Plan
    provider: str
    want: Want
    offers: tuple[Offer, ...]
    account: Account
    budget_usd: float
    budget_hours: float
    hours: float
    measured: bool
    disk_gb: int
    settings: RentSettings

    @property
    def best(self) -> Offer | None:
        found = candidates(self.offers)
        return found[0] if found else None

    @property
    def usd_per_hour(self) -> float:
        shown = self.best or (self.offers[0] if self.offers else None)
        return shown.usd_per_hour if shown else 0.0

    @property
    def usd(self) -> float:
        """What the whole thing is expected to cost."""
        return self.hours * self.usd_per_hour

    @property
    def hold_usd(self) -> float:
        """What keeping the machine of a failed run may cost, at most."""
        return self.settings.hold_minutes / 60 * self.usd_per_hour

    @property
    def limit_hours(self) -> float:
        return min(self.budget_hours, self.budget_usd / self.usd_per_hour) if self.usd_per_hour else self.budget_hours


def parse_gpus(text: str) -> tuple[int, tuple[str, ...]]:
    """`8xH100` becomes (8, exact ids); a name that is not in our table is taken as the provider's own."""
    found = _COUNTED.fullmatch(text.strip())
    count = int(found[1] or 1) if found else 0
    if not found or not 1 <= count <= 16:
        raise UsageProblem(f"{text!r} is no number of GPUs", "write 8xH100")
    return count, GPUS.get(found[2].strip().upper(), (found[2].strip(),))


def want_for(settings: RentSettings, gpus: str = "") -> Want:
    count, ids = parse_gpus(gpus or settings.gpus)
    centers = tuple(name.strip().upper() for name in settings.data_centers.split(",") if name.strip())
    return Want(ids, count, CLOUDS[settings.cloud], centers, settings.min_cuda)


def make_quote(provider: Provider, recipe_name: str, overrides: Mapping[str, Any], run_id: str | None,
               folders: Sequence[Path], settings: RentSettings, *, budget_usd: float, budget_hours: float,
               gpus: str = "", taken: Sequence[str] = ()) -> Quote:
    """Raises ConfigError for the recipe, UsageProblem for the GPUs, ProviderError when the catalogue cannot be read.

    `taken` are ids of runs that exist already.
    """
    want, recipe = want_for(settings, gpus), chosen_recipe(recipe_name, overrides, folders)
    offers, account = tuple(provider.offers(want)), provider.account()
    run = run_id or _free(new_run_id(recipe.name), taken)
    kind = "8xh100" if want.count == 8 and "H100" in want.gpus[0] else "gpu"
    minutes = recipe.minutes.get(kind)
    disk = max(settings.disk_gb, int((recipe.disk_gb or 0) * 1.25) + 20)
    cli = cli_line(recipe_name, provider.name, overrides) + f" --budget {budget_usd:g} --hours {budget_hours:g}"
    if gpus:
        cli += f" --gpus {gpus}"
    plan = plan_for(recipe, run, provider.name, f"a rented {want.count} × {want.gpus[0]}", f"{POD_BASE}/runs/{run}",
                    {"kind": kind, "free": disk * 10**9}, cli)
    quote = Quote(plan, provider.name, want, offers, account, budget_usd, budget_hours,
                  (minutes / 60 if minutes else _UNMEASURED_H) + 0.2, minutes is not None, disk, settings)
    judged = replace(plan, usd=round(quote.usd, 2), problems=_problems(quote), warnings=_warnings(quote))
    return replace(quote, plan=judged)


def _free(run: str, taken: Sequence[str]) -> str:
    number, first = 1, run
    while run in taken:
        number += 1
        run = f"{first}-{number}"
    return run


def _problems(quote: Quote) -> tuple[str, ...]:
    found, rate, balance = [], quote.usd_per_hour, quote.account.balance_usd
    if not (0 < quote.budget_usd < math.inf and 0 < quote.budget_hours < math.inf):
        found.append("a budget in dollars and in hours is needed before anything is rented")
        return tuple(found)
    if not quote.offers:
        found.append(f"the provider lists no {quote.want.count} × {quote.want.gpus[0]} at all; "
                     "another --gpus, fewer limits on data centres, or an older rent.min_cuda may find one")
    if balance is not None and balance < rate:
        found.append(f"the provider wants one hour's price (${rate:.2f}) on the balance, which has ${balance:.2f}")
    if rate and quote.limit_hours * 3600 - reserve_s(quote.limit_hours) < 60:
        found.append(f"${quote.budget_usd:.2f} pays for {quote.limit_hours * 60:.0f} min at ${rate:.2f}/h, "
                     "which is not enough to begin")
    return tuple(found)


def _warnings(quote: Quote) -> tuple[str, ...]:
    found = list(quote.best.warnings) if quote.best else []
    if quote.offers and quote.best is None:
        found.append("nothing is in stock now; it is asked again each minute until something is")
    if quote.measured and 0 < quote.limit_hours < quote.hours:
        found.append(f"the budget ends after {quote.limit_hours:.1f} h and the recipe wants about {quote.hours:.1f} h: "
                     "it would be stopped, saved and copied before its end")
    if not quote.measured:
        found.append("nobody has timed this recipe on such a machine; the budget is what ends it")
    lasts = quote.account.hours_left(quote.usd_per_hour)
    if lasts is not None and lasts < quote.limit_hours:
        found.append(f"the balance lasts {lasts:.1f} h at what would be spent then, less than the limit of "
                     f"{quote.limit_hours:.1f} h; at zero the provider ends every pod, saved or not")
    limit, spend = quote.account.spend_limit, quote.account.spend_per_hour or 0.0
    if limit is not None and spend + quote.usd_per_hour > limit:
        found.append(f"the account may spend ${limit:.0f}/h and ${spend:.2f}/h runs already, so this may be refused")
    return tuple(found)
