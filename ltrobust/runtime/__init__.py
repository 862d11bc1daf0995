"""What the machine does: processes, cores, signals, files, the terminal."""
