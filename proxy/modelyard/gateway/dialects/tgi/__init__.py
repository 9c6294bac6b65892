"""TGI's API for clients: untouched to an engine that speaks it, translated for one that speaks OpenAI's."""
