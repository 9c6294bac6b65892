"""``modelyard echo``: run the echo engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable

import rich_click as click

from modelyard import __version__
from modelyard.cli.console import fail
from modelyard.engines.echo.runtime import EchoSettings
from modelyard.engines.echo.server import BindError, Listening, Stopped, serve

_SECONDS = click.FloatRange(min=0, max=86_400)


@click.command()
@click.option("--model", "models", multiple=True, default=("echo",), show_default="echo", metavar="NAME",
              help="Name to serve. Repeat it for further names: the first is the model's id.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8100, show_default=True, type=click.IntRange(0, 65_535),
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--delay", "--ttft", "ttft", default=0.0, show_default=True, type=_SECONDS,
              metavar="SECONDS", help="Time to the first token of each answer.")  # fmt: skip
@click.option("--token-rate", default=0.0, show_default=True, type=click.FloatRange(min=0),
              metavar="TOKENS_PER_S", help="Tokens per second of each answer; 0: no limit.")  # fmt: skip
@click.option("--max-concurrency", default=0, show_default=True, type=click.IntRange(min=0), metavar="N",
              help="Requests that generate at once; others wait (TGI routes: 429). 0: no limit.")  # fmt: skip
@click.option("--max-model-len", default=32_768, show_default=True, type=click.IntRange(min=2),
              metavar="TOKENS", help="Context length: prompt and answer together.")  # fmt: skip
@click.option("--like", default="all", show_default=True, type=click.Choice(["all", "vllm", "tgi"]),
              help="Whose routes to have: those of one real engine, or all.")  # fmt: skip
@click.option("--start-delay", default=0.0, show_default=True, type=_SECONDS, metavar="SECONDS",
              help="Time before the port opens, as a real engine needs to load its weights.")  # fmt: skip
@click.option("--grace", default=5.0, show_default=True, type=_SECONDS, metavar="SECONDS",
              help="On SIGTERM: how long answers that have begun may still take.")  # fmt: skip
@click.option("--instance", metavar="NAME", show_default="process id",
              help="Value of the response header x-echo-instance: which replica answered.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Report start and stop as JSON lines.")
def echo(
    models: tuple[str, ...],
    host: str,
    port: int,
    ttft: float,
    token_rate: float,
    max_concurrency: int,
    max_model_len: int,
    like: str,
    start_delay: float,
    grace: float,
    instance: str | None,
    as_json: bool,
) -> None:
    """Run a small engine that answers with the prompt's words.

    It speaks OpenAI's and TGI's APIs, streaming included, and needs neither weights nor a GPU. The answer is
    deterministic: the last message once, or again and again until max_tokens is reached.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard echo --model demo --port 8100[/cyan]
      [cyan]modelyard echo --delay 0.3 --token-rate 20[/cyan]   as slow as a real model
      [cyan]curl -s http://127.0.0.1:8100/v1/chat/completions -H 'Content-Type: application/json' \\
           -d '{"messages": [{"role": "user", "content": "Hello, world!"}]}'[/cyan]

    SIGTERM and Ctrl-C stop it: what has begun is finished within the grace time, new requests are refused.
    """  # noqa: D301
    if any(not name.strip() for name in models):
        raise click.BadParameter("a model's name cannot be empty", param_hint="--model")
    settings = EchoSettings(
        models=models,
        instance=_header_safe(instance) if instance is not None else str(os.getpid()),
        ttft_s=ttft,
        token_rate=token_rate,
        max_concurrency=max_concurrency,
        max_model_len=max_model_len,
        like=like,
    )
    listening = Listening(host, port, start_delay, grace)

    def ready(url: str) -> None:
        if as_json:
            _line({"event": "ready", "url": url, "models": list(models), "pid": os.getpid()})
        else:
            click.echo(f"echo serves {', '.join(models)} at {url} (Ctrl-C stops it)")

    try:
        stopped = _run(settings, listening, ready)
    except BindError as exc:
        fail(f"{exc}.", as_json=as_json)
    if as_json:
        _line({"event": "stopped", "cut": stopped.cut})
    elif stopped.cut:
        click.echo(
            f"echo stopped; {stopped.cut} unfinished answer(s) were cut after {grace:g} s of grace", err=True
        )


def _header_safe(instance: str) -> str:
    if not instance or not (instance.isascii() and instance.isprintable()):
        raise click.BadParameter(
            "must be printable ASCII, since it is sent as a header", param_hint="--instance"
        )
    return instance


def _line(event: dict[str, object]) -> None:
    """One JSON line, at once, since whoever started the engine may wait for it."""
    click.echo(json.dumps(event))


def _run(settings: EchoSettings, listening: Listening, ready: Callable[[str], None]) -> Stopped:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, listening, version=__version__, ready=ready))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where that is installed, the standard event loop elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
