"""A machine as a host of containers: its engine's packages and settings, and images from files."""
