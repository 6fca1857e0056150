"""Boot images: disks and live systems made from a CoreOS base image, and their Ignition configs."""
