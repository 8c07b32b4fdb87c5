"""Scripts for developers and CI; the product does not import them."""
