"""Replicas in containers: what they are created from, how one differs from that, and how a host is brought to it."""
