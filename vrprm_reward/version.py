"""The version of this distribution, for the command line and for its build."""

VERSION = "0.1.0"
