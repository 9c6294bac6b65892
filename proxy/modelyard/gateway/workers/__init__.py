"""Several processes on one port with one truth about the replicas."""
