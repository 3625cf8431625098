"""A new generation without a lost request: rehearsed, executed in place, taken over."""
