#include "port_answer.h"

/* ---- records ---- */

struct cw_buf *port_record_begin(struct port *port, uint8_t type) {
    struct port_out *out = &port->out;
    if (!out->open) {
        port_out_begin(out);
        cw_buf_byte(&out->buf, PORT_FRAME_ANSWER);
        cw_buf_byte(&out->buf, 0);
    }
    port->record = port_out_size(out);
    port->record_open = true;
    cw_buf_put(&out->buf, "\0\0\0\0", 4);
    cw_buf_byte(&out->buf, type);
    return &out->buf;
}

static uint8_t *open_frame(struct port *port) {
    return port->out.buf.p + port->out.whole + 4;
}

/* Where the open record's type is. */
static uint8_t *open_record(struct port *port) {
    return open_frame(port) + port->record + 4;
}

size_t port_record_size(const struct port *port) {
    return port_out_size(&port->out) - port->record - 4;
}

void port_record_end(struct port *port) {
    port_store32(open_record(port) - 4, (uint32_t)port_record_size(port));
    port->record_open = false;
}

void port_answer_cut(struct port *port) {
    if (port->out.open)
        port_out_end(&port->out);
}

void port_answer_end(struct port *port) {
    struct port_out *out = &port->out;
    if (!out->open) {
        port_out_begin(out);
        cw_buf_put(&out->buf, "A\0", 2);
    }
    static const char states[] = "IATEX";
    PGTransactionStatusType state = PQtransactionStatus(port->conn);
    open_frame(port)[1] = (uint8_t)states[state <= PQTRANS_UNKNOWN ? state : PQTRANS_UNKNOWN];
    port_out_end(out);
}

/* ---- rows ---- */

static struct cw_buf *rows_begin(struct port *port) {
    struct cw_buf *buf = port_record_begin(port, PORT_RECORD_ROWS);
    cw_buf_put(buf, "\0\0\0\0", 4);
    return buf;
}

static uint32_t rows_count(struct port *port) {
    return port_load32(open_record(port) + 1);
}

static void add_row(struct cw_buf *buf, const PGresult *res, int row, int columns) {
    for (int i = 0; i < columns; i++) {
        int n = PQgetisnull(res, row, i) ? -1 : PQgetlength(res, row, i);
        size_t bytes = n > 0 ? (size_t)n : 0;
        cw_buf_reserve(buf, 4 + bytes);
        port_store32(buf->p + buf->n, (uint32_t)n);
        if (bytes)
            memcpy(buf->p + buf->n + 4, PQgetvalue(res, row, i), bytes);
        buf->n += 4 + bytes;
    }
}

uint32_t port_rows_add(struct port *port, const PGresult *res, uint32_t max_rows) {
    int rows = PQntuples(res), columns = PQnfields(res);
    uint32_t cuts = 0;
    for (int i = 0; i < rows; i++) {
        if (!port->record_open)
            rows_begin(port);
        add_row(&port->out.buf, res, i, columns);
        uint32_t count = rows_count(port) + 1;
        port_store32(open_record(port) + 1, count);
        if (count != max_rows && port_out_size(&port->out) < PORT_FRAME_BYTES)
            continue;
        port_record_end(port);
        port_answer_cut(port);
        cuts++;
    }
    return cuts;
}

void port_rows_end(struct port *port, const char *tag) {
    if (!port->record_open)
        rows_begin(port);
    size_t n = strlen(tag);
    *open_record(port) = PORT_RECORD_END;
    cw_buf_put(&port->out.buf, tag, n > 255 ? 255 : n);
    cw_buf_byte(&port->out.buf, (uint8_t)(n > 255 ? 255 : n));
    port_record_end(port);
}

void port_rows_break(struct port *port) {
    if (port->record_open)
        port_record_end(port);
}
