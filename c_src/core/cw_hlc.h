/* Hybrid logical clocks (Kulkarni et al., 2014): 46 bits of milliseconds since 1970 and 16 bits of
 * counter in one number that only grows, whatever the wall clock does.
 *
 *     63 62 61                        16 15             0
 *     0  0  milliseconds                 counter
 */
#ifndef CW_HLC_H
#define CW_HLC_H

#include <stdint.h>

#include "cw_err.h"

#define CW_HLC_MAX ((UINT64_C(1) << 62) - 1)

static inline uint64_t cw_hlc_ms(uint64_t hlc) {
    return hlc >> 16;
}

static inline uint64_t cw_hlc_counter(uint64_t hlc) {
    return hlc & 0xffff;
}

/* The next stamp after `last`, the greatest seen here or received, at wall clock `now_ms`.
 * CW_ERANGE when stamps have run out, which only a corrupt clock in the year 4199 can bring. */
enum cw_err cw_hlc_tick(uint64_t last, uint64_t now_ms, uint64_t *out);

#endif
