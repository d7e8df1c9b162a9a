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

/* The next stamp after `last`, the greatest seen here or received, at wall clock `now_ms`. After
 * CW_HLC_MAX, the end of the year 4199, there is no greater one and it is given again: whoever
 * sends that stamp, by mistake or not, must not keep all others from writing. Registers then go by
 * the dots. CW_ERANGE when `last` or `now_ms` is beyond the maximum. */
enum cw_err cw_hlc_tick(uint64_t last, uint64_t now_ms, uint64_t *out);

#endif
