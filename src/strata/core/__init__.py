"""What every room stands on: errors, processes, events, files, the clock, versions, records.

Standard library only, and valid on Python 3.9: the node agent carries this room to the machine.
"""
