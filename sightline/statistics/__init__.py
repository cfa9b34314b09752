"""Intervals, resampling and rank statistics."""
