"""The controllers that ours is measured beside."""
