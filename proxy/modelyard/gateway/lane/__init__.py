"""The fast lane: the hot routes answered at protocol level, everything else handed to aiohttp."""
