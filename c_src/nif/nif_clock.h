/* The calls on clocks: version vectors as binaries, and hybrid logical clocks as integers. */
#ifndef NIF_CLOCK_H
#define NIF_CLOCK_H

#include "nif_env.h"

nif_fn nif_clock_merge, nif_clock_compare, nif_clock_get, nif_clock_to_list, nif_clock_from_list,
    nif_hlc_tick;

#endif
