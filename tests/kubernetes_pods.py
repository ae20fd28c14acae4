"""Pods as `kubectl get pod -o json` shows them, for those who make others of them."""

from __future__ import annotations

import copy
import uuid
from typing import Any, Final

_TOKEN: Final = {
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    "name": "kube-api-access-x7k2p",
    "readOnly": True,
}

_SPEC: Final[dict[str, Any]] = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100"]}]},
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]},
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
            ]
        },
    },
    "containers": [
        {
            "env": [
                {"name": "CHECKPOINT_NAME", "value": "shop-web"},
                {"name": "CHECKPOINT_RESTORE", "value": "s3://bucket/older"},
                {
                    "name": "PASSWORD",
                    "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}},
                },
            ],
            "image": "registry.example/web:1.2",
            "imagePullPolicy": "IfNotPresent",
            "name": "app",
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 10},
            "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1"}},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"mountPath": "/data", "name": "data"},
                {"mountPath": "/cache", "name": "cache"},
                _TOKEN,
            ],
        }
    ],
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "ephemeralContainers": [{"name": "debugger-1", "image": "busybox"}],
    "hostname": "web-0",
    "initContainers": [
        {"name": "fetch", "image": "fetch:1", "volumeMounts": [_TOKEN]},
        {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "volumeMounts": [_TOKEN]},
    ],
    "nodeName": "ip-10-0-0-1.ec2.internal",
    "overhead": {"cpu": "100m"},
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 1000,
    "priorityClassName": "high",
    "restartPolicy": "Always",
    "runtimeClassName": "kata",
    "schedulerName": "default-scheduler",
    "schedulingGates": [{"name": "example.com/gate"}],
    "securityContext": {"fsGroup": 1000},
    "serviceAccount": "web",
    "serviceAccountName": "web",
    "subdomain": "web",
    "terminationGracePeriodSeconds": 30,
    "tolerations": [
        {"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"},
        {
            "effect": "NoExecute",
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "tolerationSeconds": 300,
        },
        {
            "effect": "NoExecute",
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "tolerationSeconds": 60,
        },
    ],
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
        {"name": "cache", "emptyDir": {}},
        {
            "name": "kube-api-access-x7k2p",
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                ],
            },
        },
    ],
}

_METADATA: Final[dict[str, Any]] = {
    "annotations": {
        "checkpoint-agent/heartbeat": "5m",
        "checkpoint-agent/restore": "s3://bucket/oldest",
        "checkpoint-agent/restore-action": "00000000-0000-0000-0000-000000000000",
        "cni.projectcalico.org/podIP": "10.1.2.3/32",
        "example.com/team": "shop",
        "k8s.v1.cni.cncf.io/network-status": "[]",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    },
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "finalizers": ["example.com/held"],
    "generateName": "web-7d9f8c6b5-",
    "labels": {"app": "web", "pod-template-hash": "7d9f8c6b5"},
    "managedFields": [{"manager": "kubelet", "operation": "Update"}],
    "name": "web-7d9f8c6b5-abcde",
    "namespace": "shop",
    "ownerReferences": [
        {
            "apiVersion": "apps/v1",
            "blockOwnerDeletion": True,
            "controller": True,
            "kind": "ReplicaSet",
            "name": "web-7d9f8c6b5",
            "uid": "11111111-2222-3333-4444-555555555555",
        }
    ],
    "resourceVersion": "123456",
    "uid": "c0ffee00-0000-0000-0000-000000000000",
}


def full_pod() -> dict[str, Any]:
    """One with everything on it that a cluster and its users put on pods."""
    return copy.deepcopy(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _METADATA,
            "spec": _SPEC,
            "status": {"phase": "Running", "podIP": "10.1.2.3", "hostIP": "10.0.0.1"},
        }
    )


def small_pod(
    name: str = "web", namespace: str = "default", node: str = "node-a"
) -> dict[str, Any]:
    """One that any cluster takes, with a UID of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": str(uuid.uuid4())},
        "spec": {"containers": [{"name": "app", "image": "busybox"}], "nodeName": node},
        "status": {"phase": "Running"},
    }
