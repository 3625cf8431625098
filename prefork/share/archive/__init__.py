"""A folder as one file, zip or tar: of a known length, and in any of its parts."""
