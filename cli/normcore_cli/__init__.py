"""The command line of normcore: main.py finds the command, one file each holds it."""
