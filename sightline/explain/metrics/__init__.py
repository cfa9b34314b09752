"""Whether a map is right: the pointing game, agreement of maps."""
