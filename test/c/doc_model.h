/* The obvious model of what documents hold: the history itself. Every update that made a write is
 * an event, with the writes its replica knew at that moment and what it did, act by act. What is at
 * a path, for somebody who has seen some of the events, is worked out from that alone:
 *
 *     an act is alive unless somebody who had seen it overrode it;
 *     what is there are the acts alive.
 *
 * Nothing here knows of cells, joins, contexts, tallies or receipts. */
#ifndef DOC_MODEL_H
#define DOC_MODEL_H

#include "../../c_src/core/cw_doc.h"
#include "doc_terms.h"

#define MODEL_DEPTH 3

/* Which writes somebody has seen: the first so many of each replica. */
struct cut {
    uint64_t seen[REPLICAS];
};

bool cut_contains(const struct cut *big, const struct cut *small);
bool cut_equal(const struct cut *a, const struct cut *b);
struct cut cut_join(const struct cut *a, const struct cut *b);
struct cut cut_meet(const struct cut *a, const struct cut *b);

/* Fields, and the kinds of maps they are in. In what is asked for, 0 means what is there. */
struct place {
    int n;
    struct place_step {
        enum cw_kind map;
        int field;
    } at[MODEL_DEPTH];
};

struct object {
    struct place place;
    enum cw_kind kind;
};

/* An operation in numbers: `arg` is an element, a value or a replica. */
struct wish {
    enum cw_verb verb;
    struct object on; /* kind 0: what is there */
    int arg;
    uint64_t amount;
};

/* An operation as it was understood, part of an event. */
struct act {
    struct wish wish;
    int replica;
    uint64_t counter;
    uint64_t stamp;   /* of registers */
    struct cut known; /* before the event */
};

struct model {
    struct act *at; /* as made: nobody had seen a later one */
    size_t n;
    size_t cap;
    size_t event;           /* the first act of the event being made */
    struct object *objects; /* all that were ever acted on */
    size_t objects_n;
};

void model_free(struct model *m);

/* An event: acts are run one by one, then all stay or none. */
struct event {
    int replica;
    struct cut known;
};
void model_begin(struct model *m);
/* The outcome, and on failure what the fault must say; on success the act is part of the event. */
enum cw_err model_run(struct model *m, const struct event *ev, const struct wish *wish,
                      struct cw_fault *fault);
void model_stamp(struct model *m, uint64_t stamp);
void model_undo(struct model *m);

/* ---- what somebody sees ---- */

struct view {
    const struct act **at; /* the acts alive that leave something behind, as made */
    size_t n;
};

void view_open(struct view *v, const struct model *m, const struct cut *cut);
void view_close(struct view *v);

bool view_exists(const struct view *v, const struct object *o);
/* The first kind at a place, in the order of their tags; 0 when nothing is there. */
enum cw_kind view_first_kind(const struct view *v, const struct place *place);
/* How many cells an object has: elements, owners or fields' below it. */
uint64_t view_cells(const struct view *v, const struct object *o);
bool view_has(const struct view *v, const struct object *set, int element);
int64_t view_counter(const struct view *v, const struct object *o);
int64_t view_rights(const struct view *v, const struct object *o, int replica);
/* Rights that are not negative, of all replicas but one (-1: of all). */
int64_t view_rights_but(const struct view *v, const struct object *o, int replica);

/* Appends what a visitor is told of an object that exists (doc_dump.h). */
void view_dump(const struct view *v, const struct object *o, struct cw_buf *out);

/* ---- kinds and places ---- */

extern const enum cw_kind model_kinds[];
#define MODEL_KINDS 11
#define MODEL_LEAVES 9 /* those after the maps */

enum cw_kind model_usual_kind(enum cw_verb verb);
bool object_equal(const struct object *a, const struct object *b);
/* The object's key up to and with its kind's tag. */
void object_key(const struct object *o, struct cw_buf *key);

#endif
