SELECT setseed(0.5);

-- The 30 days before, as many each second. One in ten is a restore, one in thirty has failed; half of
-- the checkpoints were taken for their regularity, until that was switched off half-way. Of ten pods
-- on each of the nodes.
INSERT INTO actions (
    action_id, type, state, cluster, node, created, updated, completed, sequence, handed_over,
    pod_uid, pod_namespace, pod_name, kind, reason, platform, gpu, checkpoint_id, path,
    restored_from, request, names, outcome, failure
)
SELECT
    id,
    CASE WHEN restore THEN 'restore_pod' ELSE 'checkpoint_pod' END,
    CASE WHEN failed THEN 'error' ELSE 'ready' END,
    '${cluster}',
    'node-' || lpad(node::text, 4, '0'),
    created,
    created + 1500000,
    CASE WHEN NOT failed THEN created + 1400000 END,
    9,
    true,
    CASE WHEN restore THEN '' ELSE md5(node || '-' || pod)::uuid::text END,
    'team-' || node % 20,
    'web-' || lpad(node::text, 4, '0') || '-' || pod,
    CASE WHEN restore THEN '' ELSE 'simple' END,
    CASE WHEN regular AND NOT restore THEN 'heartbeat' ELSE 'manual' END,
    'linux/amd64',
    '',
    CASE WHEN NOT failed THEN id END,
    CASE WHEN NOT failed THEN 's3://checkpoints/scale/' || id END,
    CASE WHEN restore THEN gen_random_uuid()::text END,
    jsonb_build_object('pod_id', md5(node || '-' || pod)::uuid, 'cluster_id', '${cluster}'),
    '{}',
    CASE WHEN NOT failed THEN jsonb_build_object(
        'checkpoint_id', id, 'path', 's3://checkpoints/scale/' || id, 'name', NULL,
        'frozen_seconds', 0.312, 'wall_seconds', 0.871,
        'phases', '[["freeze", 0.004], ["dump", 0.308], ["drain", 0.211], ["commit", 0.348]]'::jsonb,
        'bytes_raw', 87412736, 'bytes_stored', 61341712, 'chunks', 164, 'streams', 4,
        'codec', 'zstd', 'streamed', true, 'fallback_reason', NULL,
        'containers', '["app", "side"]'::jsonb, 'platform', 'linux/amd64', 'cuda_seconds', 0.0
    ) END,
    CASE WHEN failed THEN jsonb_build_object(
        'code', 'dump_failed', 'message', 'criu dump failed: Connected TCP socket',
        'state', 'every container runs on as before', 'hint', 'allow it with criu_opts',
        'field', '', 'details', '{}'::jsonb,
        'log_tail', repeat('(00.012345) Error (criu/cr-dump.c:1561): Dump files failed\n', 10)
    ) END
FROM (
    SELECT
        gen_random_uuid()::text AS id,
        random() < 0.1 AS restore,
        random() < 0.033 AS failed,
        random() < 0.5 AND n < ${rows} / 2 AS regular,
        floor(random() * ${nodes})::int AS node,
        floor(random() * 10)::int AS pod,
        ${end} - (2592000000000 / ${rows}) * (${rows} - n)::bigint AS created
    FROM generate_series(1, ${rows}) AS n
) AS made;

INSERT INTO transitions (action_id, sequence, state, time)
SELECT action_id, step.sequence, coalesce(step.state, actions.state), created + step.later
FROM actions, (VALUES
    (1, 'initialized', 3000), (2, 'processing', 9000), (5, 'checkpoint_created', 700000),
    (9, NULL, 1400000)
) AS step (sequence, state, later)
WHERE created <= ${end};

INSERT INTO checkpoint_names (name, action_id, path, ready)
SELECT pod_namespace || '/' || pod_name || '/' || container, action_id, path, completed
FROM actions, (VALUES ('app'), ('side')) AS of_pod (container)
WHERE created <= ${end} AND type = 'checkpoint_pod' AND state = 'ready';
