/* Error codes of the core. Numbers are part of the ABI and never move.
 *
 * Every function that can fail returns `enum cw_err`; results leave through out-parameters, which
 * are untouched on failure, with three exceptions. A buffer that is written to may hold a part of
 * what should have been. A struct that a function opens (cw_fragment_read, cw_doc_changes) is left
 * empty: there is nothing to free. Of a `struct cw_fault` the fields of the code are set. CW_OK
 * is 0. */
#ifndef CW_ERR_H
#define CW_ERR_H

/* X(name, number, sentence) */
#define CW_ERR_MAP(X)                                                                              \
    X(OK, 0, "no error")                                                                           \
    X(ENOMEM, 1, "out of memory")                                                                  \
    X(EBUDGET, 2, "the work exceeds the budget given; call again with a larger one")               \
    X(ETRUNCATED, 3, "the bytes end too early")                                                    \
    X(EMALFORMED, 4, "the bytes are not a canonical encoding")                                     \
    X(EVERSION, 5, "the bytes are of a format version this release does not read")                 \
    X(ELIMIT, 6, "a length or a depth is over its limit")                                          \
    X(EKIND, 7, "the path holds another kind")                                                     \
    X(EPATH, 8, "the path is empty or too long")                                                   \
    X(EOP, 9, "the operation does not exist for this kind")                                        \
    X(ERANGE, 10, "the number is out of range")                                                    \
    X(ERIGHTS, 11, "not enough rights at this replica")                                            \
    X(EGAP, 12, "an earlier delta is missing")                                                     \
    X(EREPLICA, 13, "two replica names share one id")                                              \
    X(EDUPLICATE, 14, "one dot with two contents: a replica name was used twice at once")          \
    X(ECLOCK, 15, "the version asked for is not in this document's past")                          \
    X(EPROTOCOL, 16, "the server sent what its protocol does not allow")                           \
    X(ETWOPHASE, 17, "a message of two-phase commit, which was not asked for")                     \
    X(ESPILL, 18, "the file that holds a streamed transaction could not be written or read")

enum cw_err {
#define X(name, number, sentence) CW_##name = number,
    CW_ERR_MAP(X)
#undef X
};

/* Static strings, never NULL: "ENOMEM" and the sentence; "UNKNOWN" for a number not in the list. */
const char *cw_err_name(enum cw_err err);
const char *cw_err_sentence(enum cw_err err);

#endif
