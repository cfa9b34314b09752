"""What a run's folder holds, read for its page and its verdict."""
