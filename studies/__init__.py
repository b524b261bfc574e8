"""Studies of distillation on a synthetic world: `python -m studies run NAME`, `python -m studies page NAME`.

Beside the package, not in it: it calls `dualdistill train` and `dualdistill evaluate` as a user would.
"""
