-- The views that downstream reads, as the newest migration leaves them: a test compares them with a migrated database.
-- To change one, change it here, and put the same statement into a new migration.

-- Of two people the decision counts that was made last, whichever photos and encoders their pair was found by.
CREATE VIEW pair_verdicts AS
SELECT DISTINCT ON (collection, individual_a, individual_b)
    collection, individual_a, individual_b, verdict, decided_by, note, decided_at
FROM decisions
ORDER BY collection, individual_a, individual_b, decided_at DESC, event_id DESC;

-- Every individual, how far it got at its latest revision, and the ids of its current duplicates, nearest first:
-- those that no reviewer called different, and of them those that a reviewer confirmed. Nobody who is erased has a row.
CREATE VIEW individual_duplicates AS
SELECT
    collection,
    individual_id,
    revision,
    CASE
        WHEN checked_revision = revision THEN 'checked'
        WHEN encoded_revision = revision THEN 'encoded'
        WHEN rejected_revision = revision THEN 'rejected'
        ELSE 'registered'
    END AS state,
    photo,
    attributes,
    registered_at,
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_reason
    END AS rejection_reason,
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_detail
    END AS rejection_detail,
    coalesce(found.duplicates, '{}') AS duplicates,
    CASE WHEN checked_revision = revision THEN duplicates_found END AS duplicates_found,
    coalesce(checked_revision = revision AND duplicates_found IS NOT NULL, false) AS truncated,
    coalesce(found.confirmed, '{}') AS confirmed,
    coalesce(conflicting, false) AS conflicting,
    CASE WHEN encoded_revision = revision THEN detector END AS detector,
    CASE WHEN encoded_revision = revision THEN face END AS face,
    CASE WHEN encoded_revision = revision THEN quality END AS quality
FROM individuals
CROSS JOIN LATERAL (
    SELECT greatest(registered_revision, encoded_revision, checked_revision, rejected_revision) AS revision
) AS latest
LEFT JOIN LATERAL (
    SELECT array_agg(other ORDER BY distance, other) FILTER (WHERE verdict IS DISTINCT FROM 'different') AS duplicates,
        array_agg(other ORDER BY distance, other) FILTER (WHERE verdict = 'same') AS confirmed
    FROM (
        SELECT individual_b AS other, distance, verdict
        FROM duplicates AS d
        LEFT JOIN LATERAL (
            SELECT verdict
            FROM decisions AS v
            WHERE (v.collection, v.individual_a, v.individual_b) = (d.collection, d.individual_a, d.individual_b)
            ORDER BY decided_at DESC, event_id DESC
            LIMIT 1
        ) AS last ON true
        WHERE d.collection = individuals.collection AND d.individual_a = individuals.individual_id
            AND retracted IS NULL
        UNION
        SELECT individual_a, distance, verdict
        FROM duplicates AS d
        LEFT JOIN LATERAL (
            SELECT verdict
            FROM decisions AS v
            WHERE (v.collection, v.individual_a, v.individual_b) = (d.collection, d.individual_a, d.individual_b)
            ORDER BY decided_at DESC, event_id DESC
            LIMIT 1
        ) AS last ON true
        WHERE d.collection = individuals.collection AND d.individual_b = individuals.individual_id
            AND retracted IS NULL
    ) AS pairs
) AS found ON true;
