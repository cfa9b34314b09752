"""A run's HTML report: reading the folder, the sections made of it, the template and its style.

`run_results` reads; each `*_section` module turns results into `blocks`; `html` puts them on one page.
"""
