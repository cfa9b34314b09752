"""What heads look at, as pictures and videos: one run, other data, two runs side by side."""
