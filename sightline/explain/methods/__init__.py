"""Maps from attention: single heads, products of heads, rollout."""
