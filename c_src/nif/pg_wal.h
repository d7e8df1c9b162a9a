/* Transactions of the write-ahead log as terms, made of the port program's frames (cw_wal_frame.h).
 *
 * The frame is decoded in the process that gives the terms to the application's handler. What a
 * change's relation is, Elixir says: it has compiled the codec and made the struct, which all
 * changes of the relation share. */
#ifndef PG_WAL_H
#define PG_WAL_H

#include "nif_env.h"

/* (Config, Session, Stream, Frame, Block, Message): decodes from a place in the frame on.
 *
 *     Config    {Codec, Reference}: a codec for what is text whatever happens; true when texts may
 * be parts of the frame, which they then keep in memory Session   #{Oid => {Codec, Relation, Names,
 * Layout}} Stream    the same, for streamed transactions, which look there first Names     the
 * columns' names as a tuple, in the order of terms Layout    for each column, as the server sends
 * them: its place in Names:16, whether it is of the key:8 Block     offset in the frame of the
 * block to begin with; 1 at first Message   offset of the message of it to begin with; 0 for all of
 * the block
 *
 *     {done, Blocks}
 *     {more, Blocks, Block, Message}: call again from there. After the end of a streamed
 * transaction this is so always, as Stream is then another one. {schema, Blocks, Schema, Block,
 * Message}: the same, after {relation, Arrival, Oid, Schema, Name, Identity, [{Key, Name, Type,
 * Modifier}]} or {type, Oid, Schema, Name} {error, Reason}: the frame is malformed,
 * {unknown_relation, Oid}, {wrong_columns, Oid}, {unknown_type, Oid}
 *
 *     Blocks    [{Flags, Xid, CommitLsn, EndLsn, CommitTime, Origin, Bytes, Changes}]: transactions
 *               or parts of them; flags as in cw_wal_frame.h, set for what is in Changes; Origin is
 *               nil or {Name, Lsn} */
nif_fn nif_pg_wal_decode;

#endif
