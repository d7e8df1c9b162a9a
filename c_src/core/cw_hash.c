#include "cw_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* All 128 bits of the key's hash reach the result: one half seeds the payload's hash, the other is
 * added to it. */
struct cw_hash cw_hash_cell(struct cw_bytes key, struct cw_bytes payload) {
    XXH128_hash_t k = XXH3_128bits(key.p, key.n);
    XXH128_hash_t v = XXH3_128bits_withSeed(payload.p, payload.n, k.low64);
    return (struct cw_hash){v.low64, v.high64 + k.high64};
}

uint64_t cw_hash_name(struct cw_bytes name) {
    return XXH3_64bits(name.p, name.n);
}

uint64_t cw_hash_key(struct cw_bytes key) {
    return XXH3_64bits(key.p, key.n);
}

uint64_t cw_hash_shape(struct cw_bytes key, uint64_t secret) {
    return XXH3_64bits_withSeed(key.p, key.n, secret);
}
