#include "cw_node.h"

/* Mean entries of a leaf and children of an inner node are 2^bits. Measured at 10k to 1M cells
 * (bench/): 16 and 16 cost least an update; 8 walks more nodes, 32 copies more bytes. */
#define LEAF_BITS 4
#define INNER_BITS 4

static uint64_t level_secret = 0x9e3779b97f4a7c15u;

void cw_tree_secret(uint64_t secret) {
    level_secret = secret;
}

/* A bijection of the key's hash (the finalizer of MurmurHash3), so that its low bits may be used.
 */
static uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

int cw_key_level(struct cw_bytes key) {
    uint64_t x = mix(cw_hash_shape(key, level_secret));
    if (x & ((1u << LEAF_BITS) - 1))
        return 0;
    int level = 1;
    x >>= LEAF_BITS;
    while (level < CW_TREE_HEIGHT_MAX - 1 && !(x & ((1u << INNER_BITS) - 1))) {
        level++;
        x >>= INNER_BITS;
    }
    return level;
}

/* ---- entries ---- */

struct entry {
    uint32_t klen; /* of the suffix; CW_KLEN_BOXED */
    const uint8_t *rest;
    const uint8_t *end;
};

static struct entry entry_at(const struct cw_node *nd, uint32_t i) {
    const uint32_t *offs = cw_node_offs(nd);
    const uint8_t *data = cw_node_data(nd);
    const uint8_t *p = data + offs[i];
    return (struct entry){(uint32_t)p[0] | (uint32_t)p[1] << 8, p + 2, data + offs[i + 1]};
}

static uint32_t rest_len(uint32_t klen) {
    return klen > 8 ? klen - 8 : 0;
}

static struct cw_box *box_at(const uint8_t *rest) {
    struct cw_box *box;
    memcpy(&box, rest, sizeof box);
    return box;
}

struct cw_box *cw_node_box(const struct cw_node *nd, uint32_t i) {
    if (!nd->boxes)
        return NULL;
    struct entry e = entry_at(nd, i);
    return e.klen == CW_KLEN_BOXED ? box_at(e.rest) : NULL;
}

struct cw_bytes cw_node_payload(const struct cw_node *nd, uint32_t i) {
    struct entry e = entry_at(nd, i);
    if (e.klen == CW_KLEN_BOXED)
        return cw_box_payload(box_at(e.rest));
    const uint8_t *p = e.rest + rest_len(e.klen);
    return cw_bytes(p, (size_t)(e.end - p));
}

uint32_t cw_node_key_len(const struct cw_node *nd, uint32_t i) {
    struct entry e = entry_at(nd, i);
    return e.klen == CW_KLEN_BOXED ? box_at(e.rest)->klen : nd->plen + e.klen;
}

void cw_node_key(const struct cw_node *nd, uint32_t i, uint8_t *dst) {
    struct entry e = entry_at(nd, i);
    if (e.klen == CW_KLEN_BOXED) {
        const struct cw_box *box = box_at(e.rest);
        memcpy(dst, box->bytes, box->klen);
        return;
    }
    memcpy(dst, cw_node_prefix(nd), nd->plen);
    dst += nd->plen;
    uint8_t head[8];
    cw_store64be(head, nd->heads[i]);
    memcpy(dst, head, e.klen < 8 ? e.klen : 8);
    if (e.klen > 8)
        memcpy(dst + 8, e.rest, e.klen - 8);
}

struct cw_hash cw_node_entry_hash(const struct cw_node *nd, uint32_t i, uint8_t *scratch) {
    struct cw_box *box = cw_node_box(nd, i);
    if (box)
        return box->hash;
    cw_node_key(nd, i, scratch);
    return cw_hash_cell(cw_bytes(scratch, cw_node_key_len(nd, i)), cw_node_payload(nd, i));
}

/* ---- search ---- */

/* Order of entry `i`, whose head equals the suffix's, against the suffix. */
static int cmp_tail(const struct cw_node *nd, uint32_t i, const uint8_t *suffix, size_t n) {
    struct entry e = entry_at(nd, i);
    const uint8_t *rest = e.rest;
    uint32_t klen = e.klen;
    if (klen == CW_KLEN_BOXED) {
        const struct cw_box *box = box_at(e.rest);
        klen = box->klen - nd->plen;
        rest = box->bytes + nd->plen + 8; /* looked at only when klen > 8 */
    }
    if (klen > 8 && n > 8) {
        size_t m = (klen < n ? klen : n) - 8;
        int c = cw_memcmp(rest, suffix + 8, m);
        if (c)
            return c;
    }
    return (klen > n) - (klen < n);
}

/* The number of heads smaller than `h`. Without a branch on what it finds, which no processor could
 * predict. */
static uint32_t lower_head(const uint64_t *heads, uint32_t n, uint64_t h) {
    uint32_t base = 0, count = 0;
    while (n > 16) {
        uint32_t half = n / 2;
        base += half & (0u - (uint32_t)(heads[base + half - 1] < h));
        n -= half;
    }
    for (uint32_t i = 0; i < n; i++)
        count += heads[base + i] < h;
    return base + count;
}

uint32_t cw_node_search(const struct cw_node *nd, struct cw_bytes key, bool *found) {
    *found = false;
    size_t m = key.n < nd->plen ? key.n : nd->plen;
    int c = cw_memcmp(key.p, cw_node_prefix(nd), m);
    if (c || m < nd->plen)
        return c > 0 ? nd->n : 0;
    const uint8_t *suffix = key.p + nd->plen;
    size_t n = key.n - nd->plen;
    uint64_t h = cw_head(suffix, n);
    uint32_t lo = lower_head(nd->heads, nd->n, h);
    if (lo == nd->n || nd->heads[lo] != h)
        return lo;
    uint32_t hi = lo + 1;
    while (hi < nd->n && nd->heads[hi] == h) /* equal heads are rare, many of them rarer */
        hi++;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        c = cmp_tail(nd, mid, suffix, n);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t cw_node_route(const struct cw_node *nd, struct cw_bytes key) {
    bool found;
    uint32_t i = cw_node_search(nd, key, &found);
    return found || i == 0 ? i : i - 1;
}

/* ---- building ---- */

struct cw_box *cw_box_new(const struct cw_mem *mem, uint64_t birth, struct cw_bytes key,
                          struct cw_bytes payload) {
    struct cw_box *box = cw_alloc(mem, sizeof *box + key.n + payload.n);
    if (!box)
        return NULL;
    box->birth = birth;
    box->hash = cw_hash_cell(key, payload);
    box->klen = (uint32_t)key.n;
    box->vlen = (uint32_t)payload.n;
    memcpy(box->bytes, key.p, key.n);
    if (payload.n)
        memcpy(box->bytes + key.n, payload.p, payload.n);
    return box;
}

static size_t common_prefix(struct cw_bytes a, struct cw_bytes b) {
    size_t n = a.n < b.n ? a.n : b.n;
    size_t i = 0;
    while (i < n && a.p[i] == b.p[i])
        i++;
    return i;
}

static size_t item_len(const struct cw_item *it, size_t plen) {
    if (it->box)
        return 2 + sizeof it->box;
    return 2 + rest_len((uint32_t)(it->key.n - plen)) + it->payload.n;
}

uint8_t *cw_node_put_item(uint8_t *p, const struct cw_item *it, size_t plen) {
    uint32_t klen = it->box ? CW_KLEN_BOXED : (uint32_t)(it->key.n - plen);
    *p++ = (uint8_t)klen;
    *p++ = (uint8_t)(klen >> 8);
    if (it->box) {
        memcpy(p, &it->box, sizeof it->box);
        return p + sizeof it->box;
    }
    if (klen > 8) {
        memcpy(p, it->key.p + plen + 8, klen - 8);
        p += klen - 8;
    }
    if (it->payload.n)
        memcpy(p, it->payload.p, it->payload.n);
    return p + it->payload.n;
}

struct cw_node *cw_node_build(const struct cw_mem *mem, uint64_t birth, int height,
                              const struct cw_item *items, uint32_t n) {
    size_t plen = common_prefix(items[0].key, items[n - 1].key);
    size_t len = 0;
    for (uint32_t i = 0; i < n; i++)
        len += item_len(&items[i], plen);
    size_t size = cw_node_size(n, height > 0, plen, len);
    if (size > UINT32_MAX)
        return NULL;
    struct cw_node *nd = cw_alloc(mem, size);
    if (!nd)
        return NULL;
    *nd = (struct cw_node){.birth = birth,
                           .size = (uint32_t)size,
                           .n = n,
                           .plen = (uint16_t)plen,
                           .height = (uint8_t)height,
                           .data_len = (uint32_t)len};
    uint32_t *offs = cw_node_offs(nd);
    uint8_t *data = cw_node_data(nd);
    uint8_t *p = data;
    memcpy(cw_node_prefix(nd), items[0].key.p, plen);
    for (uint32_t i = 0; i < n; i++) {
        const struct cw_item *it = &items[i];
        nd->heads[i] = cw_head(it->key.p + plen, it->key.n - plen);
        offs[i] = (uint32_t)(p - data);
        p = cw_node_put_item(p, it, plen);
        nd->boxes |= it->box != NULL;
        nd->count += it->child ? it->child->count : 1;
        if (height)
            cw_node_children(nd)[i] = it->child;
    }
    offs[n] = (uint32_t)(p - data);
    return nd;
}
