"""The command line by groups. Every command is thin: it reads options and calls one function."""
