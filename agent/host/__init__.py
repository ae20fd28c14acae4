"""Everything that acts on the machine as root: processes, runc, CRIU, cgroups.

Only this package starts processes. It holds mechanism and no policy: what to freeze, and when,
is decided above it.
"""
