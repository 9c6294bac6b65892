"""The command line: one module for each command, loaded by ``main`` when it is called."""
