"""Every action by name: what has a key where one is, what has none, and what belongs to another screen.

The keys come from the bindings. An action of another screen goes there first and then does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.screen import Screen

if TYPE_CHECKING:
    from console.app import Console

# (name, what it does, screen to go to first or '', action): an action with a key where one is stands there already.
_ACTIONS = (
    ("start a recipe …", "Choose a recipe; its stages, time and cost are shown first", "", "app.choose_recipe"),
    ("resume from checkpoint …", "Choose a run that ended early; it goes on from its newest checkpoint", "",
     "app.choose_resume"),
    ("stop run", "Finish the step, save, stop; asks first", "", "app.stop_run"),
    ("open run …", "Put another run in front", "", "app.choose_run"),
    ("compare runs …", "Draw another run beside the one in front", "run", "app.compare"),
    ("attach to a run …", "Follow a run of nanochat that others started, from its log", "", "app.attach"),
    ("replay recorded run …", "Play a run again, 20 times as fast, every screen live; nothing is trained", "",
     "app.replay"),
    ("rent pod …", "Offers and prices; asks for a budget first", "", "app.rent"),
    ("connect ssh host …", "Look at a machine and remember it", "", "app.add_target"),
    ("open shell on target", "A shell where the run in front is", "", "app.shell"),
    ("terminate pod …", "Says what would be lost, and asks", "", "app.end_rental"),
    ("set limit …", "The budget guard's sheet, with another limit", "", "app.limit_rental"),
    ("show ledger", "What rented machines cost and have cost", "", "app.ledger"),
    ("back up now …", "Copy what is not proven yet; every byte is read back", "checkpoints", "back_up"),
    ("verify all backups", "Read every byte of every copy again", "checkpoints", "verify_all"),
    ("restore checkpoint …", "Bring the marked checkpoint back", "checkpoints", "restore"),
    ("prune verified (dry run)", "What may go because it is elsewhere", "checkpoints", "prune"),
    ("load model …", "Choose a model to talk to", "chat", "pick"),
    ("compare two models", "A second model answers beside the first", "chat", "beside"),
    ("new chat", "Forget this chat and begin another", "chat", "new"),
    ("export chat", "Write the chat as a line of JSON", "chat", "export"),
    ("mute alert for 1 h", "The newest alert of this run is not shown again for an hour", "", "app.mute_alert"),
    ("save debug bundle", "Versions, doctor, settings, the ends of logs; no secrets, no data", "", "app.bundle"),
    ("copy CLI equivalent", "The command that says what this screen says", "", "app.copy_cli"),
    ("open paths", "Where everything lies; enter copies a path", "", "app.paths"),
    ("doctor", "Check this machine and the console's own files", "", "app.doctor"),
    ("settings", "What is set, and where it comes from", "", "app.settings_sheet"),
    ("read-only on/off", "Change nothing from this console until it is switched off again", "", "app.hands_off"),
)


def commands(app: Console, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """The actions above, each with its key if it has one here, then every other binding of the screen and the app."""
    here = {binding.action: (node, binding) for node, binding, enabled, _ in screen.active_bindings.values() if enabled}
    named: set[str] = set()
    for title, what, mode, action in _ACTIONS:
        short = action.removeprefix("app.")
        bound = here.get(short) or here.get(action) or here.get(f"app.go('{mode}', '{action}')")
        named.update((short, action, f"app.go('{mode}', '{action}')"))
        key = f"  ({app.get_key_display(bound[1])})" if bound else ""
        yield SystemCommand(title + key, what, partial(app.action_go, mode, action))
    for node, binding, enabled, tooltip in screen.active_bindings.values():
        if binding.id and binding.description and enabled and binding.action not in named:
            named.add(binding.action)
            title = f"{binding.description}  ({app.get_key_display(binding)})"
            yield SystemCommand(title, tooltip or binding.description, _bound(app, binding.action, node))


def _bound(app: Console, action: str, node: Any) -> Callable[[], object]:
    async def run() -> None:
        await app.run_action(action, node)

    return run
