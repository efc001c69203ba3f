"""The faces on a command line: commands, options, progress, metrics and the demonstration."""
