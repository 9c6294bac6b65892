"""A chaos suite: engines that misbehave on purpose, the real proxy before them, and what must be true."""
