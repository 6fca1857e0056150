"""Between OSTree and OCI: encapsulate a commit as an image, derive layers, import an image.

The import side (`importer`, `layout_v1`, `labels`) is standard library only and valid on
Python 3.9.
"""
