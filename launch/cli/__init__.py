"""Shared parts of the commands: flags, exit codes, signals, child processes."""
