"""``make demo``: a pod is checkpointed, killed and restored over HTTP, and goes on where it was.

A broker, the daemon and the API, as `checkpoint-agent dev` starts them, and a pod of two containers
under the machine's own runc: one counts, one holds real memory. Everything but the checkpoint in
./var/checkpoints is gone afterwards, also on Ctrl-C.
"""
