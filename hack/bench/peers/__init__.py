"""The controllers with which ours is compared."""
