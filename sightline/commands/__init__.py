"""The command line: the table of commands, and those that need no training code."""
