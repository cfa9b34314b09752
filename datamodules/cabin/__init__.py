"""The synthetic cabin: drivers, actions and what is in view, rendered to video files."""
