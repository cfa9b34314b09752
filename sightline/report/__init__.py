"""Figures and tables from stored results; nothing here trains, logs or needs torch.

`boxplots` draws score tables, `pruning_table` and `pruning_figure` the tested models, `confusion` a confusion matrix;
`style` is the look that they share, and `files` writes them so that no half file is ever read.
"""
