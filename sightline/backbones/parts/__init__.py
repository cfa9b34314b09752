"""What several families are built of: attention, windows, relative positions."""
