"""A request of Anthropic's API as a chat of OpenAI's. Pure.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any

from modelyard.errors import InvalidFieldError, NotSupportedError

from ...json_text import written

_SAME = ("temperature", "top_p")
# thoughts are the model's own; an engine without them neither wrote nor wants them
_SKIPPED = frozenset({"thinking", "redacted_thinking"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def to_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The chat that means the same, without ``model``.

    Raises ``InvalidFieldError`` for a bad value, ``NotSupportedError`` for what cannot be said.
    """
    chat = asked(body)
    most = body.get("max_tokens")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidFieldError(
            "the body needs 'max_tokens' (a whole number of at least 1)", param="max_tokens"
        )
    chat["max_tokens"] = most
    for name in _SAME:
        if body.get(name) is not None:
            chat[name] = body[name]
    if body.get("top_k") is not None:
        raise _not_sayable("top_k")
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        raise _not_sayable("thinking")
    stops = body.get("stop_sequences")
    if stops:
        if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
            raise InvalidFieldError("'stop_sequences' must be a list of texts", param="stop_sequences")
        chat["stop"] = stops
    choice = body.get("tool_choice")
    if choice is not None and chat.get("tools"):
        chat["tool_choice"] = _choice(choice)
    if body.get("stream") is True:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """What is said and which tools there are: ``messages`` and ``tools``."""
    said: list[dict[str, Any]] = []
    if body.get("system"):
        said.append({"role": "system", "content": _plain(body["system"], "system")})
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidFieldError("the body needs 'messages' (a list of at least one)", param="messages")
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise InvalidFieldError(f"'{where}' needs the role user or assistant", param=where)
        blocks = _blocks(message.get("content"), f"{where}.content")
        said += _of_user(blocks, where) if role == "user" else [_of_assistant(blocks, where)]
    chat: dict[str, Any] = {"messages": said}
    tools = body.get("tools")
    if tools:
        if not isinstance(tools, list):
            raise InvalidFieldError("'tools' must be a list", param="tools")
        chat["tools"] = [_tool(tool, f"tools.{place}") for place, tool in enumerate(tools)]
    return chat


def _of_user(blocks: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Results of tools are messages of their own, before what the user says."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_result":
            content = block.get("content")
            text = "" if content is None else _plain(content, f"{where}.tool_result")
            results.append(
                {"role": "tool", "tool_call_id": str(block.get("tool_use_id", "")), "content": text}
            )
        elif kind == "text":
            parts.append({"type": "text", "text": _text(block, where)})
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _image(block, where)}})
        else:
            raise _unknown_block(kind, where)
    if not parts:
        return results
    if all(part["type"] == "text" for part in parts):
        return [*results, {"role": "user", "content": "\n".join(part["text"] for part in parts)}]
    return [*results, {"role": "user", "content": parts}]


def _of_assistant(blocks: list[dict[str, Any]], where: str) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(_text(block, where))
        elif kind == "tool_use":
            call = {
                "name": str(block.get("name", "")),
                "arguments": written(block.get("input") or {}).decode(),
            }
            calls.append({"id": str(block.get("id", "")), "type": "function", "function": call})
        elif not isinstance(kind, str) or kind not in _SKIPPED:
            raise _unknown_block(kind, where)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if calls:
        message["tool_calls"] = calls
    return message


def _blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(block, dict) for block in content):
        return content
    raise InvalidFieldError(f"'{where}' must be text or a list of blocks", param=where)


def _plain(content: Any, where: str) -> str:
    """The text of content that may be nothing but text."""
    texts = []
    for block in _blocks(content, where):
        if block.get("type") != "text":
            raise _unknown_block(block.get("type"), where)
        texts.append(_text(block, where))
    return "\n".join(texts)


def _text(block: dict[str, Any], where: str) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise InvalidFieldError(f"a text block of '{where}' needs 'text'", param=where)
    return text


def _image(block: dict[str, Any], where: str) -> str:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "base64" and isinstance(source, dict):
        return f"data:{source.get('media_type', '')};base64,{source.get('data', '')}"
    if kind == "url" and isinstance(source, dict) and isinstance(source.get("url"), str):
        return str(source["url"])
    raise InvalidFieldError(f"an image of '{where}' needs a source of type base64 or url", param=where)


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise InvalidFieldError(f"'{where}' needs a name", param=where)
    if (tool.get("type") or "custom") != "custom":
        raise NotSupportedError(
            f"'{where}' is a tool of type {tool['type']!r}, which this model's engine does not have",
            param=where,
        )
    function = {"name": tool["name"], "parameters": tool.get("input_schema") or {"type": "object"}}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool" and isinstance(choice, dict) and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice.get("name")}}
    if isinstance(kind, str) and kind in _CHOICES:
        return _CHOICES[kind]
    raise InvalidFieldError(
        "'tool_choice' needs the type auto, any, tool (with a name) or none", param="tool_choice"
    )


def _not_sayable(name: str) -> NotSupportedError:
    return NotSupportedError(
        f"the engine of this model has no {name!r} for messages; leave it out, or use another model",
        param=name,
    )


def _unknown_block(kind: Any, where: str) -> NotSupportedError:
    return NotSupportedError(
        f"a block of type {str(kind)[:50]!r} in '{where}' cannot be given to this model's engine; leave it out",
        param=where,
    )
