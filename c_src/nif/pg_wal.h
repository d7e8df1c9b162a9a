/* Transactions of the write-ahead log as terms, made of the port program's frames (cw_wal_frame.h).
 *
 * The frame is decoded in the process that gives the terms to the application's handler. What a
 * change's relation is, Elixir says: it has compiled the codec and made the struct, which all
 * changes of the relation share. */
#ifndef PG_WAL_H
#define PG_WAL_H

#include "nif_env.h"

/* (Text, Session, Stream, Frame, Block, Message): decodes from a place in the frame on.
 *
 *   Text      a codec of no columns, for what is not of a relation
 *   Session   #{Oid => {Codec, Relation, Names, Layout}}
 *   Stream    the same, for streamed transactions, which look there first
 *   Names     the columns' names as a tuple, in the order of terms
 *   Layout    of each column, in the server's order: its place in Names:16, whether of the key:8
 *   Block     offset in the frame of the block to begin with; 1 at first
 *   Message   offset of the message of it to begin with; 0 for all of the block
 *
 * Returns one of
 *
 *   {done, Blocks}
 *   {more, Blocks, Block, Message}: call again from there. After the end of a streamed transaction
 *       this is so always, as Stream is another one then.
 *   {schema, Blocks, Schema, Block, Message}: the same, after one of
 *       {relation, Arrival, Oid, Schema, Name, Identity, [{Key, Name, Type, Modifier}]}
 *       {type, Oid, Schema, Name}
 *   {error, Reason}: malformed, {unknown_relation, Oid}, {wrong_columns, Oid}, {unknown_type, Oid}
 *
 *   Blocks    [{Flags, Xid, CommitLsn, EndLsn, CommitTime, Origin, Bytes, Changes}]: transactions
 *             or parts of them; the flags of cw_wal_frame.h, as they are true of Changes; Origin
 *             is nil or {Name, Lsn}
 */
nif_fn nif_pg_wal_decode;

#endif
