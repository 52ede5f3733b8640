"""The fast paths, and the choice between them."""
