"""What is true about each replica: alive, ready, progressing, drained, and why."""
