"""Scripts for people and CI; the product never imports them."""
