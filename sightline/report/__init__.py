"""Figures, tables and pages from stored results; nothing here trains, logs or needs torch."""
