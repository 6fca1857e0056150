"""The agent on the machine: pull the node image, merge /etc, overlay /usr, switch to multi-user.

Standard library only, and valid on Python 3.9: `strata-node.pyz` runs on whatever python3 the
CoreOS layer has.
"""
