"""What a run's results say in plain words: what can be cut, at what loss, and whether to believe it.

`evidence` reads; every rule in a `*_rules` module is a pure function that makes one `findings.Finding` of what was
read; `verdict` puts them together. docs/reading_results.md names the rules as they are named here.
"""
