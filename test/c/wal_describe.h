/* A message of pgoutput as one line of text: its type and all its fields. For the golden files. */
#ifndef CW_TEST_WAL_DESCRIBE_H
#define CW_TEST_WAL_DESCRIBE_H

#include "../../c_src/core/cw_buf.h"
#include "../../c_src/wal/cw_pgoutput.h"

void wal_describe(struct cw_buf *text, const struct cw_pg_message *m);

#endif
