"""ptrack inside other programs: what they load. Each file needs its program installed, and an error names it."""
