"""What a command line means: one file per verb."""
