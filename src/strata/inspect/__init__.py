"""Looking at images: the rules a layer must keep, and what a tree really holds."""
