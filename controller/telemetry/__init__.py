"""The controller's observability: logs and metrics."""
