"""A plan applied and written: the smaller model as a folder, reading it back, its cost, and testing that very file."""
