"""Tables: on disk, in the terminal, in Markdown."""
