"""The agent's gRPC service and its client.

gRPC's at-fork handlers were measured to kill 10-30 % of the programs that a process starts under
load. They are installed when grpc is imported, so they are turned off here, before any module of
this package can import it. A daemon sets the same in its unit file.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
