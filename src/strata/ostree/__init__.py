"""OSTree's object model, its repositories and refs. The only room that knows GVariant.

Standard library only, and valid on Python 3.9: the node agent carries this room to the machine.
"""
