"""The VM reconciler, the only one that acts on pods, and its state."""
