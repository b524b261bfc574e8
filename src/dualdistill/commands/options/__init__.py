"""The options of every verb: one record a verb, which the command line fills in and the verb's function takes.

The first line of a record is the verb's help. These modules import no PyTorch, so that `--help` is fast.
"""
