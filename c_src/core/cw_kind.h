/* The kinds of things that merge, and where their cells stand in the tree.
 *
 *     key     = content | receipt
 *     content = (map-kind field)+ kind suffix           map-kind: MAP or MAP_GROW
 *     receipt = 0x01 owner (map-kind field)+ kind       of a counter (cw_cell.h, "Receipts")
 *
 * `owner` is a replica's id (8 bytes, big-endian), `field` a key-encoded term. The first map-kind
 * is always MAP: the document itself. The suffix is the element (a key-encoded term) for sets, the
 * replica's id (8 bytes, big-endian) for counters, empty for the others. So an object, a field with
 * all below it, a set's elements are each the range of keys with one prefix, in the order of kinds
 * and terms. Two kinds at one path are two ranges side by side; reading shows the one that comes
 * first here. */
#ifndef CW_KIND_H
#define CW_KIND_H

#include "cw_bytes.h"
#include "cw_err.h"

/* X(NAME, tag, name, class) */
#define CW_KIND_LIST(X)                                                                            \
    X(MAP, 0x10, map, CW_NO_CELLS)                                                                 \
    X(MAP_GROW, 0x11, map_grow, CW_NO_CELLS)                                                       \
    X(SET, 0x20, set, CW_DOTS)                                                                     \
    X(SET_GROW, 0x21, set_grow, CW_DOTS)                                                           \
    X(SET_REMOVE_WINS, 0x22, set_remove_wins, CW_DOTS)                                             \
    X(COUNTER, 0x30, counter, CW_TALLY)                                                            \
    X(COUNTER_BOUNDED, 0x31, counter_bounded, CW_TALLY)                                            \
    X(REGISTER, 0x40, register, CW_VALUES)                                                         \
    X(REGISTER_MULTI, 0x41, register_multi, CW_VALUES)                                             \
    X(FLAG, 0x50, flag, CW_DOTS)                                                                   \
    X(FLAG_DISABLE_WINS, 0x51, flag_disable_wins, CW_DOTS)

enum cw_kind {
    CW_KIND_NONE = 0,
#define X(NAME, tag, name, class) CW_##NAME = tag,
    CW_KIND_LIST(X)
#undef X
};

/* What the payload of a kind's cells looks like (cw_cell.h). */
enum cw_class { CW_NO_CELLS, CW_DOTS, CW_VALUES, CW_TALLY, CW_RECEIPT };

#define CW_RECEIPT_TAG 0x01
#define CW_PREFIX_END 0xff /* above every byte that can follow a field: the kinds' tags */
#define CW_PATH_MAX 64     /* fields of a path */
#define CW_CONTENT_KEY_MAX (CW_KEY_MAX - 1u) /* a receipt's is one byte longer than its tally's */

/* NULL and CW_NO_CELLS for what is no kind. */
const char *cw_kind_name(enum cw_kind kind);
enum cw_class cw_kind_class(enum cw_kind kind);

static inline bool cw_kind_is_map(enum cw_kind kind) {
    return kind == CW_MAP || kind == CW_MAP_GROW;
}

static inline bool cw_kind_is_set(enum cw_kind kind) {
    return kind == CW_SET || kind == CW_SET_GROW || kind == CW_SET_REMOVE_WINS;
}

static inline bool cw_kind_is_counter(enum cw_kind kind) {
    return kind == CW_COUNTER || kind == CW_COUNTER_BOUNDED;
}

/* Whether the low bit of a dot's word is a mark: "removed", "disabled". */
static inline bool cw_kind_has_marks(enum cw_kind kind) {
    return kind == CW_SET_REMOVE_WINS || kind == CW_FLAG_DISABLE_WINS;
}

/* A key taken apart. */
struct cw_key_parts {
    enum cw_class class;
    enum cw_kind kind;      /* of the content */
    uint64_t owner;         /* receipts, counters: the replica */
    size_t path_at;         /* where the fields begin: after tag and owner of a receipt */
    struct cw_bytes object; /* the key up to and with the kind's tag */
    struct cw_bytes suffix;
};

/* Of a key that is known to be well formed, as all in a tree are. */
struct cw_key_parts cw_key_parts(struct cw_bytes key);

/* Whether foreign bytes are a well-formed key. */
enum cw_err cw_key_check(struct cw_bytes key, struct cw_key_parts *parts);

/* Whether foreign bytes are the prefix of all keys, of a field, or of an object. */
enum cw_err cw_prefix_check(struct cw_bytes prefix);

/* Turns a prefix into the least string above all that begin with it; false when there is none. */
bool cw_prefix_after(uint8_t *prefix, size_t *n);

#endif
