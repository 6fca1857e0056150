"""Definitions: `strata.toml` and rpm-ostree treefiles. Pure: text in, values out."""
