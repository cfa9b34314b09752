"""Reading other people's weights: files, the forms they come in, and renaming."""
