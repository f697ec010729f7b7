"""The command line. Only this package prints, and only it exits."""
