"""The app's half of the chat processes: they outlive the chat screen's looks and die with the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from textual.app import App

from console.errors import ConsoleError
from console.machines.targets import LOCAL
from console.messages import ChatDied, ChatSaid
from remote.errors import RemoteError

if TYPE_CHECKING:
    from console.chat.client import ChatClient
    from console.chat.launch import Launch
    from console.chat.model_server import ModelServer
    from console.workspace import Workspace


class ChatLink(App[str]):
    """A mixin of the app: start a worker, send it operations, kill it. What it says is posted as ChatSaid.

    Side 0 is the chat's own worker, side 1 that of the model beside it.
    """

    workspace: Workspace
    chat_argv: Sequence[str] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._chat_clients: dict[int, ChatClient] = {}
        self._chat_targets: dict[int, str] = {}
        self._page: ModelServer | None = None

    def chat_start(self, side: int = 0, target: str = LOCAL) -> None:
        """Start a chat worker on a target, in the place of one elsewhere; it says `ready`, or ChatDied comes."""
        from console.chat.client import ChatClient

        old = self._chat_clients.get(side)
        if old is None or self._chat_targets[side] != target:
            try:
                launch = self._launch(target)
            except ConsoleError as error:
                self.post_message(ChatDied(f"{error}; {error.next}", side))
                return
            self._chat_clients[side] = ChatClient(
                lambda event: self.post_message(ChatSaid(event, side)),
                lambda detail: self.post_message(ChatDied(detail, side)), launch)
            self._chat_targets[side] = target
        starting = self._start(self._chat_clients[side], side, None if old is self._chat_clients[side] else old)
        self.run_worker(starting, group="chat", name="chat worker", exit_on_error=False)

    def _launch(self, target: str) -> Launch:
        from console.chat.launch import ProcessHere, launcher

        argv = self.chat_argv
        if argv is not None and target == LOCAL:
            return lambda: ProcessHere(argv)
        return launcher(target, self.workspace.hosts)

    async def _start(self, client: ChatClient, side: int, old: ChatClient | None) -> None:
        if old is not None:
            await old.kill()
        try:
            await client.start()
        except (OSError, RemoteError) as error:
            self.post_message(ChatDied(str(error), side))

    def chat_send(self, operation: dict[str, Any], side: int = 0) -> None:
        if side in self._chat_clients:
            self._chat_clients[side].send(operation)

    async def chat_kill(self, side: int | None = None) -> None:
        """End one worker, or all and the page."""
        for number, client in list(self._chat_clients.items()):
            if side in (None, number):
                await client.kill()
        page = self._page if side is None else None
        if page is not None:
            self._page = None
            await asyncio.to_thread(page.close, 0.0)

    def chat_page(self, target: str, tell: Callable[[str], object]) -> None:
        """Open a page with a target's models for a browser on this machine, or end the one that is open."""
        from console.chat.model_server import ModelServer

        page = self._page
        if page is not None:
            self._page = None
            tell("the page is closed")
            self.run_worker(page.close, thread=True, exit_on_error=False)
            return
        new = self._page = ModelServer(self.workspace.hosts, target)
        tell("starting a page for the browser …")
        self.run_worker(lambda: self._open_page(new, tell), thread=True, exit_on_error=False)

    def _open_page(self, page: ModelServer, tell: Callable[[str], object]) -> None:
        """In a thread of its own."""
        try:
            page.start()
        except (ConsoleError, RemoteError, OSError) as error:
            if self._page is page:
                self._page = None
                self.call_from_thread(tell, f"no page: {error}")
            return
        if self._page is page:
            told = f"These models in a browser, until f8 or the end of this console:\n{page.url}"
            self.call_from_thread(tell, told)
