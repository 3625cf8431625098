"""Where events and access logs go, and how their files move while everybody writes."""
