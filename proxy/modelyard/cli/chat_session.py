"""A conversation in the terminal: reads lines, keeps what was said, stops an answer on Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import rich_click as click

from modelyard.cli.chat_client import Answer, ChatClient, ChatError

_HELP = "/reset forgets the conversation · /quit or Ctrl-D ends it · Ctrl-C stops an answer"


class Conversation:
    """What was said so far, in OpenAI's message shape."""

    def __init__(self, system: str | None) -> None:
        self._opening = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def with_user(self, text: str) -> list[dict[str, str]]:
        """All messages and one more from the user, which is not kept yet."""
        return [*self._opening, *self._said, {"role": "user", "content": text}]

    def keep(self, text: str, answer: str) -> None:
        """Keep one exchange; an answer that was stopped is kept as far as it came, an empty one is not."""
        if answer:
            self._said += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget everything but the system message."""
        self._said.clear()


def visible(text: str) -> None:
    """Write a piece of an answer at once, without the control characters that could drive a terminal."""
    click.echo("".join(char for char in text if char in "\n\t" or char.isprintable()), nl=False)


class Session:
    """The interactive loop. Answers run on ``runner``, whose handling of Ctrl-C cancels just the answer."""

    def __init__(
        self,
        runner: asyncio.Runner,
        model: str,
        url: str,
        conversation: Conversation,
        options: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self._runner = runner
        self._model = model
        self._url = url
        self._conversation = conversation
        self._options = options
        self._clock = clock

    def run(self) -> None:
        """Read and answer until /quit or the end of input."""
        _line_editing()
        click.secho(f"{self._model} at {self._url}\n{_HELP}", dim=True)
        http = self._runner.run(_open())
        try:
            while self._turn(http):
                pass
        finally:
            self._runner.run(http.close())

    def _turn(self, http: aiohttp.ClientSession) -> bool:
        """One line from the user; False when it was the last."""
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo()
            return False
        except KeyboardInterrupt:
            click.echo()
            return True
        match line:
            case "":
                return True
            case "/quit" | "/exit":
                return False
            case "/reset":
                self._conversation.reset()
                click.secho("Forgotten.", dim=True)
            case _ if line.startswith("/"):
                click.secho(f"There is no {line.split()[0]}. {_HELP}", dim=True)
            case _:
                self._answer(http, line)
        return True

    def _answer(self, http: aiohttp.ClientSession, line: str) -> None:
        said: list[str] = []

        def show(piece: str) -> None:
            said.append(piece)
            visible(piece)

        async def ask() -> Answer:
            client = ChatClient(http, self._url, self._clock)
            return await client.ask(self._model, self._conversation.with_user(line), self._options, show)

        try:
            answer = self._runner.run(ask())
            click.echo()
            click.secho(answer.timing(), dim=True)
        except KeyboardInterrupt:
            click.secho("\n(stopped)", dim=True)
        except ChatError as exc:
            click.secho(f"{chr(10) if said else ''}{exc}", fg="red")
        self._conversation.keep(line, "".join(said))


async def _open() -> aiohttp.ClientSession:
    """The session must be made where the event loop runs."""
    return ChatClient.session()


def _line_editing() -> None:
    """Cursor keys and recall of earlier lines, where Python was built with readline."""
    try:
        import readline  # noqa: F401 - importing it gives input() its editing
    except ImportError:
        return
