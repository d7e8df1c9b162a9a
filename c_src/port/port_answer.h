/* What leaves for the VM.
 *
 * The answer to a request is a row of frames of records; the last one carries the transaction's
 * state:
 *
 *     | 'A' | state | length: 32 | record | length: 32 | record | ...
 *
 * with the state 'I', 'T' or 'E', or 0 when more frames follow; and a record is one of
 *
 *     | 'R' | rows: 32 | values ...               rows, more of the same statement follow
 *     | 'E' | rows: 32 | values ... | tag | n: 8  the last rows of a statement, the tag's length
 *     | 'C' | data ...                            of a COPY
 *     | 131 | term ...                            an external term
 *
 * A value is its length in 32 bits, -1 for NULL, and its bytes. What is not the answer to a request
 * is an event: a frame that is an external term. */
#ifndef PORT_ANSWER_H
#define PORT_ANSWER_H

#include "port.h"

/* ---- records ---- */

/* Opens a record, and a frame for it when there is none. Its bytes are then put into the buffer
 * returned. */
struct cw_buf *port_record_begin(struct port *port, uint8_t type);
/* Bytes of the open record, its type included. */
size_t port_record_size(const struct port *port);
void port_record_end(struct port *port);

/* Closes the open frame, if there is one: more follow. */
void port_answer_cut(struct port *port);
/* Closes the last frame of an answer. */
void port_answer_end(struct port *port);

/* ---- rows ---- */

/* Puts the rows of a result into the open record of rows, and opens one first where there is none.
 * Frames that are full, by bytes or by `max_rows` unless that is 0, are cut; returns how many were.
 */
uint32_t port_rows_add(struct port *port, const PGresult *res, uint32_t max_rows);
/* Closes the statement's rows, of which there may be none, as its last, with its tag. */
void port_rows_end(struct port *port, const char *tag);
/* Closes them without: an error follows. */
void port_rows_break(struct port *port);

/* ---- terms in records ---- */

/* {error, Why, Fields} with what the server says of a failed statement. */
void port_answer_error(struct port *port, const PGresult *res);
/* The same of one that was told to stop, and is done all the same, but not all of its rows were
 * answered. Closes those that were. */
void port_answer_stopped(struct port *port);
/* {uncommitted, Why, Fields}: the transaction that a sync has ended, whose steps had not failed */
void port_answer_uncommitted(struct port *port, const PGresult *res);
/* {error, refused, Fields}: what this program itself does not do. */
void port_answer_refusal(struct port *port, const char *message);
/* {columns, [{Name, Type, TypeModifier, Table, Format}]} */
void port_answer_columns(struct port *port, const PGresult *res);
/* {described, [Type], Columns} */
void port_answer_described(struct port *port, const PGresult *res);
/* {aborted}: a step of a pipeline that was not run, after one that failed */
void port_answer_aborted(struct port *port);
/* {copying, Format, [ColumnFormat], Window} */
void port_answer_copying(struct port *port, const PGresult *res);
/* {taken, Bytes}: of the data of a COPY, since the last of these */
void port_answer_taken(struct port *port, uint32_t bytes);
/* {parameters, [{Name, Value}]} */
void port_answer_parameters(struct port *port);

/* ---- events ---- */

/* {connected, Id, [{Key, Value}]} */
void port_tell_connected(struct port *port, uint32_t id);
/* {failed, Id, Why, Message} */
void port_tell_failed(struct port *port, uint32_t id, const char *why, const char *message);
/* {closed, Why, Message} */
void port_tell_closed(struct port *port, const char *why, const char *message);
/* {notification, Pid, Channel, Payload} */
void port_tell_notification(struct port *port, const PGnotify *notify);
/* {notice, Fields} */
void port_tell_notice(struct port *port, const PGresult *res);

#endif
