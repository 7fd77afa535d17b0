"""The command line: thin commands that parse options, call the packages and show the results."""
