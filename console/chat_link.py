"""The app's half of the chat process: it outlives the chat screen's looks and dies with the app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textual.app import App

from console.messages import ChatDied, ChatSaid
from remote.errors import RemoteError

if TYPE_CHECKING:
    from console.chat_client import ChatClient
    from console.chat_launch import Launch


class ChatLink(App[str]):
    """A mixin of the app: start the worker, send it operations, kill it. What it says is posted as ChatSaid."""

    chat_argv: Sequence[str] | None = None
    _client: ChatClient | None = None

    def chat_start(self) -> None:
        """Start the chat worker; it says `ready`, or ChatDied comes."""
        from console.chat_client import ChatClient

        if self._client is None:
            self._client = ChatClient(lambda event: self.post_message(ChatSaid(event)),
                                      lambda detail: self.post_message(ChatDied(detail)), self._launch())
        self.run_worker(self._start(self._client), group="chat", name="chat worker", exit_on_error=False)

    def _launch(self) -> Launch:
        from console.chat_launch import ProcessHere, launch_here

        argv = self.chat_argv
        return launch_here if argv is None else lambda: ProcessHere(argv)

    async def _start(self, client: ChatClient) -> None:
        try:
            await client.start()
        except (OSError, RemoteError) as error:
            self.post_message(ChatDied(str(error)))

    def chat_send(self, operation: dict[str, Any]) -> None:
        if self._client is not None:
            self._client.send(operation)

    async def chat_kill(self) -> None:
        if self._client is not None:
            await self._client.kill()
