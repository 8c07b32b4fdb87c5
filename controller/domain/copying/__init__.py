"""The model of live migration's copying: pure, in simulated seconds and bytes, the same on every replica."""
