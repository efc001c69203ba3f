"""What is written and read again: archives, models, checkpoints, outputs of each row.

Everything is written beside its place and then put there at once; nothing read can execute code.
"""
