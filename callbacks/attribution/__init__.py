"""How right attribution methods are."""
