"""The folder share: a folder to look at and to take files from."""
