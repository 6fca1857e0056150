"""The command line: one thin module per command group. Parse, call, print; no logic."""
