"""What the commands share: flags, exit codes, signals, child processes."""
