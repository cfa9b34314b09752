"""The parts of a run's HTML report: what is read from the folder, the sections made of it, the template and its style.

`run_results` reads; each `*_section` module turns results into `blocks`; `html` puts them on one page.
"""
