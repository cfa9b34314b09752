"""The search over plans under limits; training and testing are passed in."""
