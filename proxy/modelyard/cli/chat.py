"""``modelyard chat``: talk to a model in the terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import rich_click as click
from click.exceptions import Exit

from modelyard.cli.chat_client import Answer, ChatClient, ChatError
from modelyard.cli.chat_session import Conversation, Session, visible
from modelyard.cli.console import fail, print_json

_INTERRUPTED = 130  # what shells give for Ctrl-C


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, envvar="MODELYARD_URL",
              show_envvar=True, help="Address of the proxy, or of any server with OpenAI's API.")  # fmt: skip
@click.option("--system", metavar="TEXT", help="System message: how the model should behave.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), metavar="T", help="0 for the most likely answer, up to 2."
)
@click.option("--json", "as_json", is_flag=True,
              help="Print one JSON object: text, usage, TTFT, tokens/s, replica.")  # fmt: skip
def chat(
    model: str,
    prompt: str | None,
    url: str,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
) -> None:
    """Talk to a model. The answer streams as it is generated.

    With PROMPT it answers once; a piped standard input is a prompt too. Without either it is a conversation:
    /reset forgets it, /quit ends it, Ctrl-C stops the answer that is being given.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard chat echo "Hello, world!"[/cyan]
      [cyan]modelyard chat qwen2.5-7b --system "Answer in French." --max-tokens 200[/cyan]
      [cyan]git diff | modelyard chat coder --system "Write a commit message for this diff."[/cyan]
      [cyan]modelyard chat echo "Hello" --json | jq .tokens_per_s[/cyan]
    """  # noqa: D301
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{url!r} is no http or https address", param_hint="--url")
    options = {"max_tokens": max_tokens, "temperature": temperature}
    given = {key: value for key, value in options.items() if value is not None}
    text = _prompt(prompt)
    conversation = Conversation(system)
    if text is not None:
        _once(model, text, conversation, url, given, as_json=as_json)
    elif as_json:
        raise click.UsageError("--json needs a PROMPT (or a piped one): a conversation is no single object.")
    else:
        with asyncio.Runner() as runner:
            Session(runner, model, url, conversation, given, time.monotonic).run()


def _prompt(given: str | None) -> str | None:
    """The prompt from the command line or from a pipe; None when somebody sits at the terminal."""
    if given is None and sys.stdin.isatty():
        return None
    text = given if given is not None else sys.stdin.read()
    if not text.strip():
        raise click.UsageError("The prompt is empty: give one, or start a conversation from a terminal.")
    return text


def _once(
    model: str, text: str, conversation: Conversation, url: str, options: Mapping[str, Any], *, as_json: bool
) -> None:
    show: Callable[[str], None] = (lambda _: None) if as_json else visible
    try:
        answer = asyncio.run(_ask(model, text, conversation, url, options, show))
    except ChatError as exc:
        if exc.partial and not as_json:
            click.echo()
        fail(str(exc), as_json=as_json, **({"partial": exc.partial} if exc.partial else {}))
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
        raise Exit(_INTERRUPTED) from None
    if as_json:
        print_json(answer.as_json())
    else:
        click.echo()
        click.secho(answer.timing(), dim=True, err=True)


async def _ask(
    model: str,
    text: str,
    conversation: Conversation,
    url: str,
    options: Mapping[str, Any],
    show: Callable[[str], None],
) -> Answer:
    async with ChatClient.session() as session:
        client = ChatClient(session, url, time.monotonic)
        return await client.ask(model, conversation.with_user(text), options, show)
