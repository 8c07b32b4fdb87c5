"""The VM: what to do about one, its status, its pod, its Events. Knows migrations only as claims and records."""
