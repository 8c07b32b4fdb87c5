"""What the product sees of a cluster, and what that adds up to."""
