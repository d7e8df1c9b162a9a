/* A document: cells in a tree, the causal context they were seen in, and the replica that writes.
 *
 * Documents are immutable: every change makes a new one, and the old one stays valid and unchanged
 * until it is freed. They may be read and changed from any thread. */
#ifndef CW_DOC_H
#define CW_DOC_H

#include "cw_cell.h"
#include "cw_forest.h"

struct cw_doc;

/* What went wrong, for the sentence that tells the user. Only the fields of the code are set. */
struct cw_fault {
    size_t op;               /* update: index of the operation */
    size_t field;            /* EPATH, EKIND: how many fields of the path were good */
    enum cw_kind have;       /* EKIND: what is there */
    enum cw_kind want;       /* EKIND, EOP: what was asked for (0: a map) */
    uint64_t here;           /* ERIGHTS: rights of this replica */
    uint64_t elsewhere;      /* ERIGHTS: rights of all others */
    struct cw_name *replica; /* EGAP: whose; owned by the caller */
    uint64_t seen;           /* EGAP: how many writes of it this document has seen */
    uint64_t needed;         /* EGAP: how many it must have seen */
};

/* ---- life ---- */

/* An empty document of the replica `name`, an encoded term. NULL without memory. */
struct cw_doc *cw_doc_new(const struct cw_mem *mem, struct cw_bytes name);

/* The same content, to be edited by another replica. */
enum cw_err cw_doc_fork(const struct cw_doc *doc, struct cw_bytes name, struct cw_doc **out);

void cw_doc_free(struct cw_doc *doc);

/* As cw_tree_release_some: frees at most `budget` nodes, and returns what is left to do or NULL. */
struct cw_forest *cw_doc_free_some(struct cw_doc *doc, size_t budget);

/* ---- reading ---- */

/* The tree of all cells; NULL when there is no memory to bring the last edits into it. */
const struct cw_tree *cw_doc_tree(const struct cw_doc *doc);

/* About how many cells there are: an upper bound that costs nothing. */
uint64_t cw_doc_count(const struct cw_doc *doc);

/* About how many replicas have written here, as cheaply. */
uint32_t cw_doc_replicas(const struct cw_doc *doc);

const struct cw_name *cw_doc_replica(const struct cw_doc *doc);
struct cw_hash cw_doc_hash(const struct cw_doc *doc);

/* All writes seen, as a vector owned by the caller. */
enum cw_err cw_doc_clock(const struct cw_doc *doc, struct cw_vv **out);

/* Bytes held by this version alone, could it be told apart: tree, context, journal. O(nodes). */
size_t cw_doc_bytes(const struct cw_doc *doc);

/* ---- changing ---- */

enum cw_verb {
    CW_PUT,       /* register: `arg` is a value-encoded term */
    CW_INCREMENT, /* counter: by `amount` */
    CW_DECREMENT,
    CW_TRANSFER, /* bounded counter: `amount` rights to the replica named `arg` */
    CW_ADD,      /* set: `arg` is a key-encoded term */
    CW_REMOVE,
    CW_ENABLE, /* flag */
    CW_DISABLE,
    CW_RESET, /* counter: everything seen of it */
    CW_DELETE /* whatever is at the path, and below: everything seen of it */
};

struct cw_step {
    struct cw_bytes field; /* key-encoded term */
    enum cw_kind map;      /* the kind of map the field is in; 0 for what is there, or CW_MAP */
};

struct cw_op {
    enum cw_verb verb;
    enum cw_kind kind; /* 0 for what is there, or the verb's usual kind */
    const struct cw_step *path;
    size_t path_len; /* at least 1 */
    struct cw_bytes arg;
    uint64_t amount;
};

/* All operations in one write (one dot), in order, each seeing those before; `now_ms` is the wall
 * clock. When nothing changes `*out` is a document equal to `doc`. On failure nothing is done and
 * `fault` tells why. */
enum cw_err cw_doc_update(const struct cw_doc *doc, const struct cw_op *ops, size_t n,
                          uint64_t now_ms, struct cw_doc **out, struct cw_fault *fault);

/* The same by a writer who has read `seen`, an earlier state of `doc`: what has come since is not
 * replaced, removed or reset by it. CW_ECLOCK when `seen` is none. */
enum cw_err cw_doc_update_as_of(const struct cw_doc *doc, const struct cw_doc *seen,
                                const struct cw_op *ops, size_t n, uint64_t now_ms,
                                struct cw_doc **out, struct cw_fault *fault);

/* ---- merging ---- */

/* Everything either has seen, for the replica of `a`. `budget` as in cw_tree_diff. CW_EDUPLICATE
 * when the two show that a replica name was used twice at once: one dot with two contents, or
 * content that is new to who has seen all of its writes. */
enum cw_err cw_doc_merge(const struct cw_doc *a, const struct cw_doc *b, size_t budget,
                         struct cw_doc **out);

/* ---- bytes (docs/FORMAT.md, "Fragments") ---- */

/* The whole state. A function of the content and the context: replicas that have seen the same
 * writes give the same bytes. */
enum cw_err cw_doc_encode(const struct cw_doc *doc, struct cw_buf *out);

/* What a replica that has seen `since` lacks. When the document does not remember its changes that
 * far back, the whole state. `budget` counts cells written, and keys touched as often as they were;
 * CW_EBUDGET when there are more of either. */
enum cw_err cw_doc_delta(const struct cw_doc *doc, const struct cw_vv *since, size_t budget,
                         struct cw_buf *out);

/* Whether the document remembers its changes since `since`. */
enum cw_err cw_doc_remembers(const struct cw_doc *doc, const struct cw_vv *since, bool *yes);

/* What changed from `old`, an earlier state of the same history, to `doc`. CW_ECLOCK when `old` has
 * seen what `doc` has not. */
enum cw_err cw_doc_delta_between(const struct cw_doc *old, const struct cw_doc *doc, size_t budget,
                                 struct cw_buf *out);

/* Joins a fragment (a state or delta) into the document. CW_EGAP when it builds on writes that the
 * document has not seen. `budget` counts cells of the document that are looked at, and is one for
 * cw_fragment_read. CW_EDUPLICATE as for cw_doc_merge. */
enum cw_err cw_doc_apply(const struct cw_doc *doc, struct cw_bytes fragment, size_t budget,
                         struct cw_doc **out, struct cw_fault *fault);

/* One fragment that does what applying both does, in any order; CW_EGAP when writes between the
 * two are in neither, or when both are net and neither begins at or after the other's beginning.
 * `budget` as in cw_fragment_read, for each. */
enum cw_err cw_fragment_join(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                             size_t budget, struct cw_buf *out);

#endif
