"""The sample distribution: real RPM repositories made from Debian packages."""
