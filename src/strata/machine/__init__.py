"""Booting a target: an OSTree deployment under systemd-nspawn, its console and its clean-up."""
