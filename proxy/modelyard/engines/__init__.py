"""Engines that ship with the package."""
