"""strata builds an operating system in layers and puts the top layer on a running machine."""

__version__ = "0.1.0"
