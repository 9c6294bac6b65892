"""The echo engine: answers with the prompt's words, at a chosen pace, in the shapes of real engines.

It needs no weights and no GPU, so trials, demonstrations and tests run anywhere. ``app.build_app`` makes
the aiohttp application, ``server.serve`` runs it until it is told to stop.
"""
