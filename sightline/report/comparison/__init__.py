"""Several runs side by side: averages, spread, intervals of differences."""
