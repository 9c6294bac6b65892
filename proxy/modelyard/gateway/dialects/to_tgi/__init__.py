"""OpenAI's API for engines that speak TGI's ``/generate`` only."""
