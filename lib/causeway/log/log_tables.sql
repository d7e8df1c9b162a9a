-- The log's tables, version 1. SCHEMA stands for the schema, PARTITIONS and MAX_BYTES for settings. A line of two dashes
-- and a semicolon ends a statement.

CREATE TABLE SCHEMA.log_settings (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  version int NOT NULL,
  partitions int NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
  max_bytes int NOT NULL CHECK (max_bytes > 0)
)
--;
INSERT INTO SCHEMA.log_settings (version, partitions, max_bytes) VALUES (1, PARTITIONS, MAX_BYTES)
--;
-- From which number on a segment has the messages of a partition.
CREATE TABLE SCHEMA.log_segments (
  partition int NOT NULL,
  segment int NOT NULL,
  first bigint NOT NULL,
  opened timestamptz NOT NULL,
  PRIMARY KEY (partition, segment)
)
--;
INSERT INTO SCHEMA.log_segments SELECT p, 1, 1, clock_timestamp() FROM generate_series(0, PARTITIONS - 1) p
--;
-- Messages that were numbered together, `first` to `last`. It is only ever appended to, and ends with its segment.
CREATE TABLE SCHEMA.log_batches (
  partition int NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  segment int NOT NULL,
  time timestamptz NOT NULL,
  publisher text NOT NULL,
  topics text[] NOT NULL,
  payloads bytea[] NOT NULL,
  keys text[],
  metadata bytea[],
  PRIMARY KEY (partition, last, segment)
) PARTITION BY LIST (segment)
--;
-- What is compressed, the publisher has compressed.
ALTER TABLE SCHEMA.log_batches ALTER topics SET STORAGE EXTERNAL, ALTER payloads SET STORAGE EXTERNAL,
  ALTER keys SET STORAGE EXTERNAL, ALTER metadata SET STORAGE EXTERNAL
--;
CREATE TABLE SCHEMA.log_batches_1 PARTITION OF SCHEMA.log_batches FOR VALUES IN (1)
  WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_threshold = 1000000)
--;
-- Published by transactions that have not committed yet; `leads` marks each one's first.
CREATE TABLE SCHEMA.log_outbox (
  xact xid8 NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  leads boolean NOT NULL,
  topic text NOT NULL,
  payload bytea NOT NULL,
  key text,
  metadata bytea,
  publisher text NOT NULL,
  PRIMARY KEY (xact, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
--;
ALTER TABLE SCHEMA.log_outbox ALTER payload SET STORAGE EXTERNAL, ALTER metadata SET STORAGE EXTERNAL
--;
-- Consumer groups; what changes `revision` is to be looked at by those who have partitions.
CREATE TABLE SCHEMA.log_groups (
  name text PRIMARY KEY,
  paused boolean NOT NULL DEFAULT false,
  revision bigint NOT NULL DEFAULT 0
)
--;
-- Who takes part; a lease.
CREATE TABLE SCHEMA.log_members (
  name text NOT NULL REFERENCES SCHEMA.log_groups ON DELETE CASCADE,
  member text NOT NULL,
  expires timestamptz NOT NULL,
  PRIMARY KEY (name, member)
)
--;
-- What a group has done with of each partition, and who has that partition. Each owner has another epoch, and what is said
-- under an earlier one does not count.
CREATE TABLE SCHEMA.log_positions (
  name text NOT NULL REFERENCES SCHEMA.log_groups ON DELETE CASCADE,
  partition int NOT NULL,
  acked bigint NOT NULL,
  owner text,
  epoch bigint NOT NULL,
  expires timestamptz,
  PRIMARY KEY (name, partition)
) WITH (fillfactor = 50)
--;
-- Messages that failed, those that wait for such a one with the same key, and those that were given up.
CREATE TABLE SCHEMA.log_parked (
  name text NOT NULL REFERENCES SCHEMA.log_groups ON DELETE CASCADE,
  partition int NOT NULL,
  sequence bigint NOT NULL,
  topic text NOT NULL,
  key text,
  payload bytea NOT NULL,
  metadata bytea,
  publisher text NOT NULL,
  time timestamptz NOT NULL,
  deliveries int NOT NULL,
  due timestamptz NOT NULL,
  dead boolean NOT NULL DEFAULT false,
  error text,
  PRIMARY KEY (name, partition, sequence)
)
