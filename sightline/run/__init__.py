"""A run's folder: its paths, atomic writing, provenance, work shared among processes."""
