"""The VM: its decision, its status, its pod, its Events. Knows migrations only as claims and records."""
