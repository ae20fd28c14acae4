"""Containers that come back into pods: what the agent answers ``checkpoint-runc``.

A kubelet creates a pod's containers one by one, each in the moment when its engine runs
``checkpoint-runc create``. That asks here (``server``), and what is asked is answered with a cold
start or with everything that `runc restore` needs; the program on the other end is
agent/host/wrapper.
"""

from agent.runtime.report import ActionReporter, Reporter
from agent.runtime.server import RestoreServer

__all__ = ["ActionReporter", "Reporter", "RestoreServer"]
