"""Measurements, never pass or fail by the clock."""
