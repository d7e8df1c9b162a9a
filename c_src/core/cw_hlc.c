#include "cw_hlc.h"

enum cw_err cw_hlc_tick(uint64_t last, uint64_t now_ms, uint64_t *out) {
    if (now_ms > CW_HLC_MAX >> 16 || last > CW_HLC_MAX)
        return CW_ERANGE;
    uint64_t wall = now_ms << 16, next = last < CW_HLC_MAX ? last + 1 : last;
    *out = wall > next ? wall : next;
    return CW_OK;
}
