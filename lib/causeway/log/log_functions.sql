-- The log's functions. SCHEMA stands for the schema, LITERAL for its name as a text, NAMESPACE for it as a prefix of
-- advisory locks and settings.

-- The partition of a topic: the first three bytes of its SHA-256, modulo. Causeway.Log.Topic has it, too.
CREATE OR REPLACE FUNCTION SCHEMA.log_partition(topic text, partitions int) RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT ('x' || pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(topic, 'UTF8')), 1, 3), 'hex'))::bit(24)::int
    % partitions
$$
--;
-- Whoever numbers messages of a partition holds this until the end of the transaction, and so commits before the next
-- one looks.
CREATE OR REPLACE FUNCTION SCHEMA.log_lock(partition int) RETURNS void
LANGUAGE sql VOLATILE AS $$
  SELECT pg_catalog.pg_advisory_xact_lock(('SCHEMA.log_batches'::regclass::oid::bigint << 32) | partition)
$$
--;
-- What is to be so before messages are numbered.
CREATE OR REPLACE FUNCTION SCHEMA.log_check(topics text[], payloads bytea[], keys text[], metadata bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n int := cardinality(topics);
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'messages are numbered in READ COMMITTED transactions only' USING ERRCODE = 'active_sql_transaction';
  END IF;

  -- Keys and metadata are NULL when no message has one.
  IF n = 0 OR cardinality(payloads) <> n OR cardinality(keys) <> n OR cardinality(metadata) <> n THEN
    RAISE EXCEPTION 'arrays of different sizes' USING ERRCODE = 'array_subscript_error';
  END IF;

  -- A number that a reader has seen is not given again after a crash of the server.
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'local', true);
  END IF;
END
$$
--;
-- Numbers messages of one partition, and returns the first number. READ COMMITTED only: what the holder before has
-- committed must be seen here.
CREATE OR REPLACE FUNCTION SCHEMA.log_append_one(p int, topics text[], payloads bytea[], keys text[], metadata bytea[],
                                                 publisher text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s record;
  b record;
BEGIN
  PERFORM SCHEMA.log_check(topics, payloads, keys, metadata);
  PERFORM SCHEMA.log_lock(p);
  SELECT segment, first - 1 AS last, opened INTO s FROM SCHEMA.log_segments WHERE partition = p ORDER BY segment DESC LIMIT 1;

  IF NOT FOUND THEN
    RAISE EXCEPTION 'the log has no partition %', p USING ERRCODE = 'invalid_parameter_value';
  END IF;

  SELECT last, time INTO b FROM SCHEMA.log_batches WHERE segment = s.segment AND partition = p ORDER BY last DESC LIMIT 1;
  b.last := coalesce(b.last, s.last);

  INSERT INTO SCHEMA.log_batches (partition, first, last, segment, time, publisher, topics, payloads, keys, metadata)
    VALUES (p, b.last + 1, b.last + cardinality(topics), s.segment, greatest(clock_timestamp(), b.time, s.opened), publisher,
            topics, payloads, keys, metadata);
  RETURN b.last + 1;
END
$$
--;
-- Messages of several partitions, which are in order; so many of each. The first number of each. All take one statement, with
-- a generic plan: to plan it anew for each batch costs more than it does.
CREATE OR REPLACE FUNCTION SCHEMA.log_append(partitions int[], counts int[], topics text[], payloads bytea[], keys text[],
                                             metadata bytea[], publisher text) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  locked boolean;
  a int := 1;
  starts int[] := '{}';
  firsts bigint[];
BEGIN
  IF cardinality(partitions) = 1 THEN
    RETURN ARRAY[SCHEMA.log_append_one(partitions[1], topics, payloads, keys, metadata, publisher)];
  END IF;

  PERFORM SCHEMA.log_check(topics, payloads, keys, metadata);

  FOR i IN 1 .. cardinality(partitions) LOOP
    -- An expression is evaluated without a statement.
    locked := SCHEMA.log_lock(partitions[i]) IS NOT NULL;
    starts := starts || a;
    a := a + counts[i];
  END LOOP;

  -- What was committed before the locks were had is seen by this, as it is a statement of its own.
  WITH batches AS (
    INSERT INTO SCHEMA.log_batches (partition, first, last, segment, time, publisher, topics, payloads, keys, metadata)
      SELECT u.p, coalesce(b.last + 1, s.first), coalesce(b.last + 1, s.first) + u.n - 1, s.segment,
             greatest(clock_timestamp(), b.time, s.opened), publisher, topics[u.f : u.f + u.n - 1],
             payloads[u.f : u.f + u.n - 1], keys[u.f : u.f + u.n - 1], metadata[u.f : u.f + u.n - 1]
      FROM unnest(partitions, counts, starts) u (p, n, f)
        CROSS JOIN LATERAL (
          SELECT g.segment, g.first, g.opened FROM SCHEMA.log_segments g
          WHERE g.partition = u.p ORDER BY g.segment DESC LIMIT 1) s
        LEFT JOIN LATERAL (
          SELECT h.last, h.time FROM SCHEMA.log_batches h
          WHERE h.segment = s.segment AND h.partition = u.p ORDER BY h.last DESC LIMIT 1) b ON true
    RETURNING partition, first)
  SELECT array_agg(n.first ORDER BY n.partition) INTO firsts FROM batches n;

  IF cardinality(firsts) IS DISTINCT FROM cardinality(partitions) THEN
    RAISE EXCEPTION 'the log does not have all of the partitions %', partitions USING ERRCODE = 'invalid_parameter_value';
  END IF;

  IF a - 1 <> cardinality(topics) THEN
    RAISE EXCEPTION 'counts of % messages, and there are %', a - 1, cardinality(topics) USING ERRCODE = 'array_subscript_error';
  END IF;

  RETURN firsts;
END
$$
--;
-- Numbers what a transaction has put into the outbox. Partitions are locked in order, so that two never wait for each other.
CREATE OR REPLACE FUNCTION SCHEMA.log_number(x xid8) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n int := (SELECT partitions FROM SCHEMA.log_settings);
  r record;
BEGIN
  FOR r IN
    WITH gone AS (DELETE FROM SCHEMA.log_outbox WHERE xact = x RETURNING *),
    placed AS (SELECT *, SCHEMA.log_partition(topic, n) AS p FROM gone),
    counted AS (
      SELECT *, (row_number() OVER w - 1) / 256 AS by_count,
             (sum(octet_length(payload)) OVER w - 1) / 262144 AS by_bytes
      FROM placed WINDOW w AS (PARTITION BY p ORDER BY id ROWS UNBOUNDED PRECEDING))
    SELECT p, array_agg(topic ORDER BY id) AS topics, array_agg(payload ORDER BY id) AS payloads,
           CASE WHEN count(key) > 0 THEN array_agg(key ORDER BY id) END AS keys,
           CASE WHEN count(metadata) > 0 THEN array_agg(metadata ORDER BY id) END AS metadata, min(publisher) AS publisher
    FROM counted GROUP BY p, by_count, by_bytes ORDER BY p, min(id)
  LOOP
    PERFORM SCHEMA.log_append_one(r.p, r.topics, r.payloads, r.keys, r.metadata, r.publisher);
  END LOOP;
END
$$
--;
-- At the commit of a transaction that has published. One with a snapshot of its own cannot see the last number; its
-- messages stay in the outbox, and whoever reads the log is told to number them.
CREATE OR REPLACE FUNCTION SCHEMA.log_commit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('causeway.NAMESPACE', '', true);

  IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
    PERFORM SCHEMA.log_number(NEW.xact);
  ELSE
    PERFORM pg_logical_emit_message(true, 'causeway.NAMESPACE.outbox', '');
  END IF;

  RETURN NULL;
END
$$
--;
DROP TRIGGER IF EXISTS log_commit ON SCHEMA.log_outbox
--;
CREATE CONSTRAINT TRIGGER log_commit AFTER INSERT ON SCHEMA.log_outbox
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.leads) EXECUTE FUNCTION SCHEMA.log_commit()
--;
-- Numbers what such transactions have left: how many there were.
CREATE OR REPLACE FUNCTION SCHEMA.log_drain() RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n int := (SELECT partitions FROM SCHEMA.log_settings);
  xacts xid8[];
  x xid8;
BEGIN
  IF NOT EXISTS (SELECT FROM SCHEMA.log_outbox) OR
     NOT pg_try_advisory_xact_lock(('SCHEMA.log_outbox'::regclass::oid::bigint << 32)) THEN
    RETURN 0;
  END IF;

  xacts := ARRAY(SELECT xact FROM SCHEMA.log_outbox GROUP BY xact ORDER BY min(id));

  -- All at once, and in order: one transaction's partitions may come before those of the one before.
  PERFORM SCHEMA.log_lock(p) FROM (
    SELECT DISTINCT SCHEMA.log_partition(topic, n) AS p FROM SCHEMA.log_outbox WHERE xact = ANY (xacts) ORDER BY p) o;

  FOREACH x IN ARRAY xacts LOOP
    PERFORM SCHEMA.log_number(x);
  END LOOP;

  RETURN cardinality(xacts);
END
$$
--;
-- Publishes bytes that begin with what they are: see Causeway.Log.Payload.
CREATE OR REPLACE FUNCTION SCHEMA.log_publish(topic text, payload bytea, key text, metadata bytea, publisher text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  max_bytes int := (SELECT s.max_bytes FROM SCHEMA.log_settings s);
  x xid8 := pg_current_xact_id();
  again boolean := coalesce(current_setting('causeway.NAMESPACE', true), '') = x::text;
BEGIN
  IF topic IS NULL OR topic = '' OR octet_length(topic) > 1024 OR topic ~ '(^|\.)[*>](\.|$)' THEN
    RAISE EXCEPTION 'a topic has 1 to 1024 bytes, and no token that is * or >: %', coalesce(quote_literal(left(topic, 200)), 'NULL')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  IF payload IS NULL THEN
    RAISE EXCEPTION 'the payload is NULL' USING ERRCODE = 'null_value_not_allowed',
      HINT = 'Of JSON, null is ''null''.';
  END IF;

  IF octet_length(payload) + coalesce(octet_length(metadata), 0) > max_bytes THEN
    RAISE EXCEPTION 'the message has % bytes, and % is the most', octet_length(payload) + coalesce(octet_length(metadata), 0), max_bytes
      USING ERRCODE = 'program_limit_exceeded', HINT = 'Publish where it is kept, or raise max_bytes in SCHEMA.log_settings.';
  END IF;

  INSERT INTO SCHEMA.log_outbox (xact, leads, topic, payload, key, metadata, publisher)
    VALUES (x, NOT again, topic, payload, key, metadata,
            coalesce(publisher, nullif(current_setting('application_name'), ''), session_user));

  -- Undone with the savepoint in which the row is.
  IF NOT again THEN
    PERFORM set_config('causeway.NAMESPACE', x::text, true);
  END IF;
END
$$
--;
CREATE OR REPLACE FUNCTION SCHEMA.publish(topic text, payload jsonb, key text DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS void LANGUAGE sql VOLATILE AS $$
  SELECT SCHEMA.log_publish(topic, pg_catalog.convert_to(payload::text, 'UTF8'), key, pg_catalog.convert_to(metadata::text, 'UTF8'), NULL)
$$
--;
CREATE OR REPLACE FUNCTION SCHEMA.publish_bytes(topic text, payload bytea, key text DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS void LANGUAGE sql VOLATILE AS $$
  SELECT SCHEMA.log_publish(topic, '\x00'::bytea || payload, key, pg_catalog.convert_to(metadata::text, 'UTF8'), NULL)
$$
--;
-- Of each partition, the first number that is kept and the last one that was given.
CREATE OR REPLACE FUNCTION SCHEMA.log_ends() RETURNS TABLE (partition int, first bigint, last bigint)
LANGUAGE sql STABLE AS $$
  SELECT s.partition, min(s.first),
         coalesce((SELECT b.last FROM SCHEMA.log_batches b WHERE b.partition = s.partition AND b.segment = max(s.segment)
                   ORDER BY b.last DESC LIMIT 1), max(s.first) - 1)
  FROM SCHEMA.log_segments s GROUP BY s.partition ORDER BY s.partition
$$
--;
-- The last number that a partition gave before a time. Times do not decrease with numbers.
CREATE OR REPLACE FUNCTION SCHEMA.log_before(p int, moment timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  low bigint;
  high bigint;
  middle bigint;
  b record;
BEGIN
  SELECT e.first - 1, e.last INTO low, high FROM SCHEMA.log_ends() e WHERE e.partition = p;

  -- What ends at low is before it, what begins after high is not.
  WHILE low < high LOOP
    middle := (low + high) / 2 + 1;
    SELECT x.first, x.last, x.time INTO b FROM SCHEMA.log_batches x WHERE x.partition = p AND x.last >= middle ORDER BY x.last LIMIT 1;

    IF b.time < moment THEN
      low := b.last;
    ELSE
      high := b.first - 1;
    END IF;
  END LOOP;

  RETURN low;
END
$$
--;
-- Message by message, for people.
CREATE OR REPLACE VIEW SCHEMA.messages AS
  SELECT b.partition, b.first + m.n - 1 AS sequence, b.time, b.publisher, m.topic, m.key,
         CASE get_byte(m.payload, 0) WHEN 131 THEN NULL WHEN 0 THEN NULL ELSE convert_from(m.payload, 'UTF8')::jsonb END AS json,
         m.payload
  FROM SCHEMA.log_batches b, unnest(b.topics, b.payloads, b.keys) WITH ORDINALITY m (topic, payload, key, n)
--;
CREATE OR REPLACE FUNCTION SCHEMA.log_group_lock(grp text) RETURNS void
LANGUAGE sql VOLATILE AS $$
  SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(grp, 'SCHEMA.log_groups'::regclass::oid::bigint))
$$
--;
-- Whether a lease still counts. None is longer than ten minutes: one that ends later was taken before the clock was set back,
-- and what its member has left would be nobody's for as long.
CREATE OR REPLACE FUNCTION SCHEMA.log_alive(expires timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
  SELECT expires > pg_catalog.clock_timestamp() AND expires < pg_catalog.clock_timestamp() + interval '10 minutes'
$$
--;
-- Makes a group that begins after these numbers, if there is none.
CREATE OR REPLACE FUNCTION SCHEMA.log_group(grp text, partitions int[], positions bigint[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO SCHEMA.log_groups (name) VALUES (grp) ON CONFLICT DO NOTHING;

  IF NOT FOUND THEN
    RETURN false;
  END IF;

  -- Epochs go on where those of a group of the same name cannot have been, which was deleted and may have owners still.
  INSERT INTO SCHEMA.log_positions (name, partition, acked, epoch)
    SELECT grp, p, a, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM unnest(partitions, positions) x (p, a);
  RETURN true;
END
$$
--;
-- The timeline of the server's log, which is another one after each failover.
CREATE OR REPLACE FUNCTION SCHEMA.log_timeline() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c)
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END
$$
--;
-- A partition's epoch as its owner knows it, with the timeline: what an owner says to another server, which may lack what it has
-- handled, is of an earlier epoch.
CREATE OR REPLACE FUNCTION SCHEMA.log_epoch(epoch bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT (epoch << 16) | (SCHEMA.log_timeline() & 65535)
$$
--;
-- Says that a member is there, and takes partitions for it that nobody has, up to its share. What it has, with the epochs;
-- of more than its share, those with the highest numbers are to be released.
CREATE OR REPLACE FUNCTION SCHEMA.log_claim(grp text, me text, lease_ms int)
RETURNS TABLE (partition int, epoch bigint, acked bigint, surplus boolean, paused boolean, revision bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  until timestamptz;
  share int;
  have int;
BEGIN
  PERFORM SCHEMA.log_group_lock(grp);

  -- Deleted, with members.
  IF NOT EXISTS (SELECT FROM SCHEMA.log_groups WHERE name = grp) THEN
    RETURN;
  END IF;

  until := clock_timestamp() + lease_ms * interval '1 millisecond';
  DELETE FROM SCHEMA.log_members WHERE name = grp AND NOT SCHEMA.log_alive(expires) AND member <> me;
  INSERT INTO SCHEMA.log_members (name, member, expires) VALUES (grp, me, until)
    ON CONFLICT (name, member) DO UPDATE SET expires = until;
  share := (SELECT ceil((SELECT count(*) FROM SCHEMA.log_positions WHERE name = grp)::numeric / count(*))
            FROM SCHEMA.log_members WHERE name = grp);
  UPDATE SCHEMA.log_positions SET expires = until WHERE name = grp AND owner = me;
  GET DIAGNOSTICS have = ROW_COUNT;

  IF have < share THEN
    UPDATE SCHEMA.log_positions p SET owner = me, epoch = p.epoch + 1, expires = until
    FROM (SELECT f.partition FROM SCHEMA.log_positions f
          WHERE f.name = grp AND (f.owner IS NULL OR NOT SCHEMA.log_alive(f.expires))
          ORDER BY f.partition LIMIT share - have FOR UPDATE) free
    WHERE p.name = grp AND p.partition = free.partition;
  END IF;

  RETURN QUERY
    SELECT p.partition, SCHEMA.log_epoch(p.epoch), p.acked, row_number() OVER (ORDER BY p.partition) > share, g.paused, g.revision
    FROM SCHEMA.log_groups g LEFT JOIN SCHEMA.log_positions p ON p.name = g.name AND p.owner = me
    WHERE g.name = grp;
END
$$
--;
-- Gives partitions back; all that a member has, and its membership, when they are NULL.
CREATE OR REPLACE FUNCTION SCHEMA.log_release(grp text, me text, partitions int[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM SCHEMA.log_group_lock(grp);
  UPDATE SCHEMA.log_positions SET owner = NULL, expires = NULL
    WHERE name = grp AND owner = me AND (partitions IS NULL OR partition = ANY (partitions));

  IF partitions IS NULL THEN
    DELETE FROM SCHEMA.log_members WHERE name = grp AND member = me;
  END IF;
END
$$
--;
-- Forgets a group that nobody takes part in, or any: NULL when there is none, else the members for which it was not done.
CREATE OR REPLACE FUNCTION SCHEMA.log_delete_group(grp text, force boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members text[];
BEGIN
  PERFORM SCHEMA.log_group_lock(grp);
  members := ARRAY(SELECT m.member FROM SCHEMA.log_members m WHERE m.name = grp AND SCHEMA.log_alive(m.expires) ORDER BY m.member);

  IF cardinality(members) > 0 AND NOT force THEN
    RETURN members;
  END IF;

  DELETE FROM SCHEMA.log_groups WHERE name = grp;
  RETURN CASE WHEN FOUND THEN '{}'::text[] END;
END
$$
--;
-- All up to a number is done with: whether the caller still has the partition. Of those parked before, `done` are gone. Who
-- says what is `expected` to be acknowledged before this, also says that this has not been done yet.
CREATE OR REPLACE FUNCTION SCHEMA.log_ack(grp text, p int, e bigint, upto bigint, done bigint[], expected bigint DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n int;
BEGIN
  UPDATE SCHEMA.log_positions SET acked = greatest(acked, upto)
    WHERE name = grp AND partition = p AND SCHEMA.log_epoch(epoch) = e AND owner IS NOT NULL AND acked = coalesce(expected, acked);

  IF NOT FOUND THEN
    RETURN false;
  END IF;

  IF cardinality(done) > 0 THEN
    DELETE FROM SCHEMA.log_parked WHERE name = grp AND partition = p AND sequence = ANY (done);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN expected IS NULL OR n = cardinality(done);
  END IF;

  RETURN true;
END
$$
--;
-- The same, with what has failed or waits: arrays of the same size.
CREATE OR REPLACE FUNCTION SCHEMA.log_park(grp text, p int, e bigint, upto bigint, done bigint[], sequences bigint[],
  topics text[], keys text[], payloads bytea[], metadata bytea[], publishers text[], times timestamptz[], deliveries int[],
  waits int[], dead boolean[], errors text[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT SCHEMA.log_ack(grp, p, e, upto, done) THEN
    RETURN false;
  END IF;

  INSERT INTO SCHEMA.log_parked AS k (name, partition, sequence, topic, key, payload, metadata, publisher, time, deliveries, due, dead, error)
    SELECT grp, p, s, t, x.k, b, m, u, at, d, clock_timestamp() + w * interval '1 millisecond', z, f
    FROM unnest(sequences, topics, keys, payloads, metadata, publishers, times, deliveries, waits, dead, errors)
         x (s, t, k, b, m, u, at, d, w, z, f)
    ON CONFLICT (name, partition, sequence) DO UPDATE
      SET deliveries = excluded.deliveries, due = excluded.due, dead = excluded.dead, error = excluded.error;
  RETURN true;
END
$$
--;
-- Puts a group elsewhere. Who has partitions of it finds that they have them no more.
CREATE OR REPLACE FUNCTION SCHEMA.log_seek(grp text, partitions int[], positions bigint[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM SCHEMA.log_group_lock(grp);
  UPDATE SCHEMA.log_positions q SET acked = a, epoch = q.epoch + 1, owner = NULL, expires = NULL
    FROM unnest(partitions, positions) x (p, a) WHERE q.name = grp AND q.partition = p;

  IF NOT FOUND THEN
    RETURN false;
  END IF;

  DELETE FROM SCHEMA.log_parked WHERE name = grp AND partition = ANY (partitions) AND NOT dead;
  RETURN true;
END
$$
--;
-- Begins a new segment, for all partitions.
CREATE OR REPLACE FUNCTION SCHEMA.log_roll() RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n int := (SELECT max(segment) + 1 FROM SCHEMA.log_segments);
BEGIN
  -- Made first, as that takes longer than nobody may publish.
  EXECUTE format('CREATE TABLE SCHEMA.%I (LIKE SCHEMA.log_batches INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING CONSTRAINTS) '
                 'WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_threshold = 1000000)', 'log_batches_' || n);
  EXECUTE format('ALTER TABLE SCHEMA.log_batches ATTACH PARTITION SCHEMA.%I FOR VALUES IN (%s)', 'log_batches_' || n, n);
  PERFORM SCHEMA.log_lock(p.partition) FROM (SELECT DISTINCT partition FROM SCHEMA.log_segments ORDER BY partition) p;
  INSERT INTO SCHEMA.log_segments (partition, segment, first, opened)
    SELECT e.partition, n, e.last + 1,
           greatest(clock_timestamp(), (SELECT max(s.opened) FROM SCHEMA.log_segments s),
                    (SELECT b.time FROM SCHEMA.log_batches b WHERE b.partition = e.partition AND b.last = e.last))
    FROM SCHEMA.log_ends() e;
  RETURN n;
END
$$
--;
-- The segments, oldest first, and when no more came into each.
CREATE OR REPLACE FUNCTION SCHEMA.log_sizes() RETURNS TABLE (segment int, bytes bigint, opened timestamptz, closed timestamptz, messages bigint)
LANGUAGE sql STABLE AS $$
  SELECT s.segment, pg_catalog.pg_total_relation_size(to_regclass('SCHEMA.log_batches_' || s.segment)), min(s.opened), min(n.opened),
         sum(coalesce(n.first, e.last + 1) - s.first)::bigint
  FROM SCHEMA.log_segments s
    LEFT JOIN SCHEMA.log_segments n ON n.partition = s.partition AND n.segment = s.segment + 1
    JOIN SCHEMA.log_ends() e ON e.partition = s.partition
  GROUP BY s.segment ORDER BY s.segment
$$
--;
-- Begins a new segment when the last one is older or larger than these: its number, or NULL.
CREATE OR REPLACE FUNCTION SCHEMA.log_roll_if(older_ms bigint, larger bigint) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s record;
BEGIN
  -- The others have their turn in a minute.
  IF NOT pg_try_advisory_xact_lock('SCHEMA.log_segments'::regclass::oid::bigint << 32) THEN
    RETURN NULL;
  END IF;

  PERFORM set_config('lock_timeout', '2s', true);
  SELECT * INTO s FROM SCHEMA.log_sizes() z WHERE z.closed IS NULL;

  IF s.messages > 0 AND (s.opened < clock_timestamp() - older_ms * interval '1 millisecond' OR s.bytes > larger) THEN
    RETURN SCHEMA.log_roll();
  END IF;

  RETURN NULL;
END
$$
--;
-- Drops the oldest segment if all in it is older than this, or all segments together are larger: its number, or NULL.
CREATE OR REPLACE FUNCTION SCHEMA.log_drop_if(older_ms bigint, larger bigint) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s record;
BEGIN
  IF NOT pg_try_advisory_xact_lock('SCHEMA.log_segments'::regclass::oid::bigint << 32) THEN
    RETURN NULL;
  END IF;

  -- Whoever publishes waits behind this, if it has to wait.
  PERFORM set_config('lock_timeout', '1s', true);
  SELECT * INTO s FROM SCHEMA.log_sizes() z LIMIT 1;

  IF s.closed IS NOT NULL AND (s.closed < clock_timestamp() - older_ms * interval '1 millisecond' OR
                               larger < (SELECT sum(z.bytes) FROM SCHEMA.log_sizes() z)) THEN
    EXECUTE format('DROP TABLE SCHEMA.%I', 'log_batches_' || s.segment);
    DELETE FROM SCHEMA.log_segments g WHERE g.segment = s.segment;
    RETURN s.segment;
  END IF;

  RETURN NULL;
END
$$
--;
-- The same for many partitions of a member at once: those that it still has.
CREATE OR REPLACE FUNCTION SCHEMA.log_acks(grp text, partitions int[], epochs bigint[], uptos bigint[]) RETURNS SETOF int
LANGUAGE sql VOLATILE AS $$
  UPDATE SCHEMA.log_positions q SET acked = greatest(q.acked, x.upto)
  FROM unnest(partitions, epochs, uptos) x (p, e, upto)
  WHERE q.name = grp AND q.partition = x.p AND SCHEMA.log_epoch(q.epoch) = x.e AND q.owner IS NOT NULL
  RETURNING q.partition
$$
