"""``modelyard tour``: the state of a fleet, one answer from each model, and requests to try by hand."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.markup import escape

from modelyard.cli.chat_client import Answer, ChatClient, ChatError
from modelyard.cli.console import PROBLEM, err, fail, out, print_json
from modelyard.cli.status import render_status
from modelyard.cli.tables import rows
from modelyard.cli.verbs import inventory_options, run_verb

PROMPT = "Hello from Modelyard!"
_MAX_TOKENS = 32


@click.command()
@inventory_options
def tour(inventory: str, limit: str | None, as_json: bool) -> None:
    """Show what runs, let every model answer once through the proxy, and print requests to try.

    `make up` ends with it.

    \b
    [bold]Example[/bold]
      [cyan]modelyard tour -i inventories/local[/cyan]

    Exit code 0: every model answered. 1: no proxy is up, or a model gave no answer.
    """  # noqa: D301
    result = run_verb("status", inventory, limit, as_json=as_json).result or {}
    url = next((str(row["url"]) for row in rows(result.get("proxies")) if row.get("state") == "up"), None)
    if not as_json:
        render_status(out(), result, now=datetime.now(UTC))
    if url is None:
        fail("No proxy is up: run `make up`, or playbooks/site.yml on this inventory.", as_json=as_json)
    models = sorted({str(row["model"]) for row in rows(result.get("endpoints"))})
    answers, refusals = asyncio.run(ask_all(url, models))
    if as_json:
        told = {model: answer.as_json() for model, answer in answers.items()}
        print_json({"status": result, "url": url, "answers": told, "failures": refusals})
    else:
        show(out(), url, answers)
        for model, why in refusals.items():
            err().print(f"[bold red]{escape(model)}[/] gave no answer: {escape(why)}", soft_wrap=True)
    if refusals:
        raise Exit(PROBLEM)


async def ask_all(url: str, models: list[str]) -> tuple[dict[str, Answer], dict[str, str]]:
    """One short answer of each model, and why the others gave none."""
    answers: dict[str, Answer] = {}
    refusals: dict[str, str] = {}
    async with ChatClient.session() as session:
        client = ChatClient(session, url, time.monotonic)
        for model in models:
            try:
                answers[model] = await client.ask(
                    model,
                    [{"role": "user", "content": PROMPT}],
                    {"max_tokens": _MAX_TOKENS, "temperature": 0},
                    lambda _piece: None,
                )
            except ChatError as exc:
                refusals[model] = str(exc)
    return answers, refusals


def show(console: Console, url: str, answers: Mapping[str, Any]) -> None:
    """The answers, and requests that work as they are printed."""
    for model, answer in answers.items():
        console.print(f"\n[bold]{escape(model)}[/] was asked: {escape(PROMPT)}")
        console.print(f"  {escape(answer.text.strip())}", style="green", soft_wrap=True)
        console.print(f"  {escape(answer.timing())}", style="dim", soft_wrap=True)
    if not answers:
        return
    model = next(iter(answers))
    console.print("\n[bold]Try it[/]")
    for line in requests(url, model):
        console.print(f"  {escape(line)}", soft_wrap=True, style="cyan")


def this_command() -> str:
    """How to call this program from the working directory: `make` has it on its PATH, a shell may not."""
    path = Path(sys.argv[0]).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def requests(url: str, model: str) -> list[str]:
    """Shell lines, each a whole request."""
    json_header = "-H 'Content-Type: application/json'"
    return [
        f"curl {url}/v1/models",
        f"curl {url}/v1/chat/completions {json_header} "
        f'-d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        f"curl -N {url}/v1/chat/completions {json_header} "
        f'-d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        f"curl {url}/generate {json_header} "
        f'-d \'{{"model_id": "{model}", "prompt": "Once upon a time", "max_new_tokens": 20}}\'',
        f'{this_command()} chat {model} --url {url} "Hello!"',
    ]
