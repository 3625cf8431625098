"""The control socket: what a running master is asked by people, both ends of it."""
