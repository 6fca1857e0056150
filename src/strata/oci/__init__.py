"""OCI images: digests, manifests, references, layouts, layer tars and their transports.

Standard library only, and valid on Python 3.9: the node agent carries this room to the machine.
"""
