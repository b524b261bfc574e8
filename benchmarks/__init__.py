"""Speed and memory of every fast operator beside its reference, timed in one run, with equal results.

`python -m benchmarks` in a checkout lists them; the installed package does not contain them.
"""
