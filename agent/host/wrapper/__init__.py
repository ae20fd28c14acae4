"""What ``checkpoint-runc`` starts for a container that is to come back from a checkpoint.

containerd and CRI-O run ``checkpoint-runc`` wherever they would run runc. It is a script for sh,
which hands everything over to runc but the ``create`` of a container that asks for a checkpoint:
that one comes here. This program asks the agent, runs `runc restore` as the engine's own child, so
that the container becomes that too, and runs `runc create` after all when there is nothing to
restore or it fails.

It stands between an engine and its container: standard library only, and little of that, see
agent/host/launcher.
"""
