"""One file (or two) per architecture family."""
