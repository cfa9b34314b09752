"""Semantic-aware temporal accumulation: its counts, its scores, its reducer."""
