"""A locked set of packages becomes a normalised tree, and the tree an image in the store."""
