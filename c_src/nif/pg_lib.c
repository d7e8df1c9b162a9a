#include "pg_lib.h"

#include <string.h>

#include "pg_codec.h"

/* ---- structs ---- */

/* The VM's own order of keys is seen by walking a map: by name up to OTP 25, by the atoms' numbers
 * since. */
static bool order_keys(ErlNifEnv *env, const struct pg_lib *lib, struct pg_shape *shape) {
    ErlNifMapIterator it;
    ERL_NIF_TERM map = enif_make_new_map(env), value;
    unsigned n = 0;
    shape->fields[shape->n] = lib->a_struct; /* for the length of this function */
    for (unsigned i = 0; i <= shape->n; i++)
        if (!enif_make_map_put(env, map, shape->fields[i], enif_make_uint(env, i), &map))
            return false;
    if (!enif_map_iterator_create(env, map, &it, ERL_NIF_MAP_ITERATOR_FIRST))
        return false;
    for (; enif_map_iterator_get_pair(env, &it, &shape->keys[n], &value); n++) {
        unsigned field;
        enif_get_uint(env, value, &field);
        *(field < shape->n ? &shape->at[field] : &shape->module_at) = (unsigned char)n;
        enif_map_iterator_next(env, &it);
    }
    enif_map_iterator_destroy(env, &it);
    return true;
}

static ERL_NIF_TERM module_atom(ErlNifEnv *env, const char *name) {
    char full[64] = "Elixir.";
    strncat(full, name, sizeof full - strlen(full) - 1);
    return enif_make_atom(env, full);
}

static bool fill_shape(ErlNifEnv *env, const struct pg_lib *lib, struct pg_shape *shape,
                       const char *module, const char *ours, const char *fields) {
    shape->modules[0] = module_atom(env, module);
    shape->modules[1] = module_atom(env, ours);
    while (*fields) {
        size_t n = strcspn(fields, " ");
        shape->fields[shape->n++] = enif_make_atom_len(env, fields, n);
        fields += n + (fields[n] == ' ');
    }
    return order_keys(env, lib, shape);
}

ERL_NIF_TERM pg_make_struct(ErlNifEnv *env, const struct pg_shape *shape, bool ours,
                            const ERL_NIF_TERM *fields) {
    ERL_NIF_TERM values[PG_FIELDS_MOST + 1], term;
    for (unsigned i = 0; i < shape->n; i++)
        values[shape->at[i]] = fields[i];
    values[shape->module_at] = shape->modules[ours];
    /* Cannot fail: the keys differ. */
    enif_make_map_from_arrays(env, (ERL_NIF_TERM *)shape->keys, values, shape->n + 1, &term);
    return term;
}

bool pg_get_struct(ErlNifEnv *env, const struct pg_lib *lib, const struct pg_shape *shape,
                   ERL_NIF_TERM term, ERL_NIF_TERM *fields) {
    ERL_NIF_TERM module;
    if (!enif_get_map_value(env, term, lib->a_struct, &module) ||
        (module != shape->modules[0] && module != shape->modules[1]))
        return false;
    for (unsigned i = 0; i < shape->n; i++)
        if (!enif_get_map_value(env, term, shape->fields[i], &fields[i]))
            return false;
    return true;
}

/* ---- all of it ---- */

static void fill_atoms(ErlNifEnv *env, struct pg_lib *lib) {
#define X(name) lib->a_##name = enif_make_atom(env, #name);
    PG_ATOMS(X)
#undef X
    lib->a_minus_inf = enif_make_atom(env, "-inf");
    lib->a_struct = enif_make_atom(env, "__struct__");
    lib->a_iso = enif_make_atom(env, "Elixir.Calendar.ISO");
    lib->a_causeway_json = enif_make_atom(env, "causeway_json");
#define X(name, atom) lib->kinds[PG_##name] = enif_make_atom(env, #atom);
    PG_KINDS(X)
#undef X
}

static bool fill_shapes(ErlNifEnv *env, struct pg_lib *lib) {
    bool ok = true;
#define X(name, module, ours, fields)                                                              \
    ok = ok && fill_shape(env, lib, &lib->shapes[PG_##name], module, ours, fields);
    PG_STRUCTS(X)
#undef X
    return ok;
}

struct pg_lib *pg_lib_new(ErlNifEnv *env) {
    struct pg_lib *lib = enif_alloc(sizeof *lib);
    if (!lib)
        return NULL;
    memset(lib, 0, sizeof *lib);
    fill_atoms(env, lib);
    lib->codec_type = enif_open_resource_type(env, NULL, PG_CODEC_TYPE, NULL,
                                              ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
    if (lib->codec_type && fill_shapes(env, lib))
        return lib;
    enif_free(lib);
    return NULL;
}
