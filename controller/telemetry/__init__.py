"""What the controller tells about itself: logs, metrics, probes."""
