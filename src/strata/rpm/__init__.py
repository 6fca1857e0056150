"""Packages: names and versions, solving into a lock, driving dnf, reading installed inventories."""
