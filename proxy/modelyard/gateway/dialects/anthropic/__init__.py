"""Anthropic's messages: untouched to an engine that serves them, translated for one that serves chats."""
