"""The command line: a file a command.

No module here imports JAX before a command runs, so that `--help` answers at once.
"""
