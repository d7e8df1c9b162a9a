/* Dates, times, timestamps and intervals. The server counts days and microseconds from the first of
 * January 2000; its calendar, like Elixir's, is Gregorian at all times, with a year 0. */
#include "pg_type.h"

#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)

/* What the server takes; timestamps end before the last. */
#define DAYS_LEAST INT64_C(-2451545) /* the 24th of November 4714 BC */
#define DAYS_MOST INT64_C(2145031948)
#define STAMP_LEAST INT64_C(-211813488000000000)
#define STAMP_END INT64_C(9223371331200000000)

/* Far beyond both, and harmless in the sums below. */
#define YEAR_MOST 6000000

#define CYCLE_DAYS 146097 /* of 400 years */
#define MARCH_TO_2000 730425

/* ---- the calendar ----
 *
 * Years are counted from March, which puts the leap day at their ends. */

struct civil {
    int64_t year;
    int month;
    int day;
};

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

static int64_t floor_rest(int64_t a, int64_t b) {
    return a % b + (a % b < 0 ? b : 0);
}

static struct civil civil_of_days(int64_t days) {
    int64_t z = days + MARCH_TO_2000, cycle = floor_div(z, CYCLE_DAYS);
    int64_t in_cycle = z - cycle * CYCLE_DAYS;
    int64_t year =
        (in_cycle - in_cycle / 1460 + in_cycle / 36524 - in_cycle / (CYCLE_DAYS - 1)) / 365;
    int64_t in_year = in_cycle - (365 * year + year / 4 - year / 100);
    int month = (int)((5 * in_year + 2) / 153); /* 0 is March */
    int day = (int)(in_year - (153 * month + 2) / 5) + 1;
    return (struct civil){cycle * 400 + year + (month >= 10), month < 10 ? month + 3 : month - 9,
                          day};
}

static int64_t days_of_civil(struct civil c) {
    int64_t year = c.year - (c.month <= 2), cycle = floor_div(year, 400);
    int64_t in_cycle = year - cycle * 400;
    int month = c.month > 2 ? c.month - 3 : c.month + 9;
    int64_t in_year = (153 * month + 2) / 5 + c.day - 1;
    return cycle * CYCLE_DAYS + in_cycle * 365 + in_cycle / 4 - in_cycle / 100 + in_year -
           MARCH_TO_2000;
}

static bool is_leap(int64_t year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static bool is_civil(struct civil c) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return c.year >= -YEAR_MOST && c.year <= YEAR_MOST && c.month >= 1 && c.month <= 12 &&
           c.day >= 1 && c.day <= days[c.month - 1] + (c.month == 2 && is_leap(c.year));
}

/* ---- fields of structs ---- */

struct clock {
    ERL_NIF_TERM hour, minute, second, microsecond;
};

/* Of the microseconds since midnight, which may be the one that ends the day. */
static struct clock make_clock(struct pg_decode *d, const struct pg_node *node, int64_t us) {
    int s = (int)(us / SECOND);
    return (struct clock){enif_make_int(d->env, s / 3600), enif_make_int(d->env, s / 60 % 60),
                          enif_make_int(d->env, s % 60),
                          enif_make_tuple2(d->env, enif_make_int(d->env, (int)(us % SECOND)),
                                           enif_make_int(d->env, node->precision))};
}

/* Refuses what is no time of the day; one that ends it is one only where `ends` says so. */
static bool get_clock(struct pg_encode *e, const struct pg_node *node, struct clock c,
                      ERL_NIF_TERM term, bool ends, int64_t *us) {
    int n, hour, minute, second, micro;
    const ERL_NIF_TERM *at;
    if (!enif_get_int(e->env, c.hour, &hour) || !enif_get_int(e->env, c.minute, &minute) ||
        !enif_get_int(e->env, c.second, &second) ||
        !enif_get_tuple(e->env, c.microsecond, &n, &at) || n != 2 ||
        !enif_get_int(e->env, at[0], &micro))
        return PG_REFUSE(e, node, wrong, term);
    if (hour < 0 || hour > 24 || minute < 0 || minute > 59 || second < 0 || second > 59 ||
        micro < 0 || micro >= SECOND)
        return PG_REFUSE(e, node, out_of_range, term);
    *us = ((hour * 60 + minute) * INT64_C(60) + second) * SECOND + micro;
    return *us < DAY || (*us == DAY && ends) || PG_REFUSE(e, node, out_of_range, term);
}

static bool get_civil(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM year,
                      ERL_NIF_TERM month, ERL_NIF_TERM day, ERL_NIF_TERM term, int64_t *days) {
    struct civil c;
    ErlNifSInt64 y;
    if (!enif_get_int64(e->env, year, &y) || !enif_get_int(e->env, month, &c.month) ||
        !enif_get_int(e->env, day, &c.day))
        return PG_REFUSE(e, node, wrong, term);
    c.year = y;
    if (!is_civil(c))
        return PG_REFUSE(e, node, out_of_range, term);
    *days = days_of_civil(c);
    return true;
}

static bool check_calendar(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM calendar,
                           ERL_NIF_TERM term) {
    return calendar == e->lib->a_iso || PG_REFUSE(e, node, calendar, term);
}

/* ---- date ---- */

enum cw_err pg_get_date(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 4)
        return CW_EMALFORMED;
    int32_t days = (int32_t)pg_load32(s.p);
    if (days == INT32_MAX || days == INT32_MIN) {
        *term = days > 0 ? d->lib->a_inf : d->lib->a_minus_inf;
        return CW_OK;
    }
    struct civil c = civil_of_days(days);
    const ERL_NIF_TERM fields[] = {d->lib->a_iso, enif_make_int(d->env, c.day),
                                   enif_make_int(d->env, c.month), enif_make_int64(d->env, c.year)};
    *term = pg_make(d, PG_DATE_, fields);
    return CW_OK;
}

bool pg_put_date(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[4];
    int64_t days;
    if (term == e->lib->a_inf || term == e->lib->a_minus_inf)
        return pg_put32(e, term == e->lib->a_inf ? INT32_MAX : (uint32_t)INT32_MIN);
    if (!pg_fields(e, node, PG_DATE_, term, f) || !check_calendar(e, node, f[0], term) ||
        !get_civil(e, node, f[3], f[2], f[1], term, &days))
        return false;
    if (days < DAYS_LEAST || days > DAYS_MOST)
        return PG_REFUSE(e, node, out_of_range, term);
    return pg_put32(e, (uint32_t)days);
}

/* ---- time, and time with the distance of its zone ---- */

static ERL_NIF_TERM make_time(struct pg_decode *d, const struct pg_node *node, int64_t us) {
    struct clock c = make_clock(d, node, us);
    const ERL_NIF_TERM fields[] = {d->lib->a_iso, c.hour, c.microsecond, c.minute, c.second};
    return pg_make(d, PG_TIME_, fields);
}

enum cw_err pg_get_time(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)depth;
    if (s.n != 8 || cw_load64be(s.p) > (uint64_t)DAY)
        return CW_EMALFORMED;
    *term = make_time(d, node, (int64_t)cw_load64be(s.p));
    return CW_OK;
}

/* Comes as the time it is in Greenwich then; the zone itself, seconds west of it, is not kept. */
enum cw_err pg_get_timetz(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    (void)depth;
    if (s.n != 12 || cw_load64be(s.p) > (uint64_t)DAY)
        return CW_EMALFORMED;
    int64_t us = (int64_t)cw_load64be(s.p) + (int32_t)pg_load32(s.p + 8) * SECOND;
    *term = make_time(d, node, floor_rest(us, DAY));
    return CW_OK;
}

static bool get_time(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term,
                     int64_t *us) {
    ERL_NIF_TERM f[5];
    return pg_fields(e, node, PG_TIME_, term, f) && check_calendar(e, node, f[0], term) &&
           get_clock(e, node, (struct clock){f[1], f[3], f[4], f[2]}, term, true, us);
}

bool pg_put_time(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t us;
    return get_time(e, node, term, &us) && pg_put64(e, (uint64_t)us);
}

bool pg_put_timetz(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t us;
    return get_time(e, node, term, &us) && pg_put64(e, (uint64_t)us) && pg_put32(e, 0);
}

/* ---- timestamps ---- */

static bool is_last(const struct pg_decode *d, const struct pg_node *node, int64_t us) {
    return d->stamp.term && d->stamp.us == us && d->stamp.kind == (int)node->kind &&
           d->stamp.precision == node->precision;
}

static void keep(struct pg_decode *d, const struct pg_node *node, int64_t us, ERL_NIF_TERM term) {
    d->stamp.term = term;
    d->stamp.us = us;
    d->stamp.kind = (int)node->kind;
    d->stamp.precision = node->precision;
}

/* Infinity, or {calendar day hour microsecond minute month second year}: the first eight fields of
 * NaiveDateTime and DateTime. False for infinity, with its term. */
static bool stamp_fields(struct pg_decode *d, const struct pg_node *node, int64_t us,
                         ERL_NIF_TERM *f, ERL_NIF_TERM *infinite) {
    if (us == INT64_MAX || us == INT64_MIN) {
        *infinite = us > 0 ? d->lib->a_inf : d->lib->a_minus_inf;
        return false;
    }
    struct civil c = civil_of_days(floor_div(us, DAY));
    struct clock t = make_clock(d, node, floor_rest(us, DAY));
    f[0] = d->lib->a_iso;
    f[1] = enif_make_int(d->env, c.day);
    f[2] = t.hour;
    f[3] = t.microsecond;
    f[4] = t.minute;
    f[5] = enif_make_int(d->env, c.month);
    f[6] = t.second;
    f[7] = enif_make_int64(d->env, c.year);
    return true;
}

enum cw_err pg_get_timestamp(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                             unsigned depth, ERL_NIF_TERM *term) {
    ERL_NIF_TERM f[8];
    (void)depth;
    if (s.n != 8)
        return CW_EMALFORMED;
    int64_t us = (int64_t)cw_load64be(s.p);
    if (is_last(d, node, us))
        *term = d->stamp.term;
    else if (stamp_fields(d, node, us, f, term))
        keep(d, node, us, *term = pg_make(d, PG_NAIVE, f));
    return CW_OK;
}

static ERL_NIF_TERM make_string(ErlNifEnv *env, const char *s) {
    return nif_make_binary(env, cw_bytes(s, strlen(s)));
}

enum cw_err pg_get_timestamptz(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                               unsigned depth, ERL_NIF_TERM *term) {
    ERL_NIF_TERM f[12];
    (void)depth;
    if (s.n != 8)
        return CW_EMALFORMED;
    int64_t us = (int64_t)cw_load64be(s.p);
    if (is_last(d, node, us)) {
        *term = d->stamp.term;
        return CW_OK;
    }
    if (!stamp_fields(d, node, us, f, term))
        return CW_OK;
    if (!d->zone[0]) {
        d->zone[0] = make_string(d->env, "Etc/UTC");
        d->zone[1] = make_string(d->env, "UTC");
    }
    f[8] = f[10] = enif_make_int(d->env, 0);
    f[9] = d->zone[0];
    f[11] = d->zone[1];
    keep(d, node, us, *term = pg_make(d, PG_DATETIME, f));
    return CW_OK;
}

static bool put_stamp(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term,
                      const ERL_NIF_TERM *f) {
    int64_t days, us;
    if (!check_calendar(e, node, f[0], term) ||
        !get_civil(e, node, f[7], f[5], f[1], term, &days) ||
        !get_clock(e, node, (struct clock){f[2], f[4], f[6], f[3]}, term, false, &us))
        return false;
    if (days < floor_div(STAMP_LEAST, DAY) || days >= STAMP_END / DAY)
        return PG_REFUSE(e, node, out_of_range, term);
    return pg_put64(e, (uint64_t)(days * DAY + us));
}

static bool is_infinite(struct pg_encode *e, ERL_NIF_TERM term) {
    return term == e->lib->a_inf || term == e->lib->a_minus_inf;
}

static bool put_infinite(struct pg_encode *e, ERL_NIF_TERM term) {
    return pg_put64(e, term == e->lib->a_inf ? (uint64_t)INT64_MAX : (uint64_t)INT64_MIN);
}

/* A DateTime stands for what its clock shows, wherever that is. */
bool pg_put_timestamp(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[12];
    if (is_infinite(e, term))
        return put_infinite(e, term);
    if (!pg_get_struct(e->env, e->lib, &e->lib->shapes[PG_DATETIME], term, f) &&
        !pg_fields(e, node, PG_NAIVE, term, f))
        return false;
    return put_stamp(e, node, term, f);
}

bool pg_put_timestamptz(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[12];
    int std, utc;
    if (is_infinite(e, term))
        return put_infinite(e, term);
    if (!pg_fields(e, node, PG_DATETIME, term, f))
        return false;
    if (!enif_get_int(e->env, f[8], &std) || !enif_get_int(e->env, f[10], &utc) || std || utc)
        return PG_REFUSE(e, node, not_utc, term);
    return put_stamp(e, node, term, f);
}

/* ---- intervals: microseconds, days and months ---- */

static ERL_NIF_TERM make_duration(struct pg_decode *d, const struct pg_node *node, int64_t us,
                                  int days, int months) {
    ERL_NIF_TERM zero = enif_make_int(d->env, 0);
    ERL_NIF_TERM micro = enif_make_tuple2(d->env, enif_make_int(d->env, (int)(us % SECOND)),
                                          enif_make_int(d->env, node->precision));
    const ERL_NIF_TERM fields[] = {
        zero, enif_make_int(d->env, months),        zero, enif_make_int(d->env, days), zero,
        zero, enif_make_int64(d->env, us / SECOND), micro};
    return pg_make(d, PG_DURATION, fields);
}

static ERL_NIF_TERM make_interval(struct pg_decode *d, int64_t us, int days, int months) {
    const ERL_NIF_TERM fields[] = {enif_make_int(d->env, months), enif_make_int(d->env, days),
                                   enif_make_int64(d->env, us / SECOND),
                                   enif_make_int(d->env, (int)(us % SECOND))};
    return pg_make(d, PG_INTERVAL_, fields);
}

enum cw_err pg_get_interval(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                            unsigned depth, ERL_NIF_TERM *term) {
    (void)depth;
    if (s.n != 16)
        return CW_EMALFORMED;
    int64_t us = (int64_t)cw_load64be(s.p);
    int32_t days = (int32_t)pg_load32(s.p + 8), months = (int32_t)pg_load32(s.p + 12);
    if (us == INT64_MAX && days == INT32_MAX && months == INT32_MAX)
        *term = d->lib->a_inf;
    else if (us == INT64_MIN && days == INT32_MIN && months == INT32_MIN)
        *term = d->lib->a_minus_inf;
    else
        *term = d->codec->duration ? make_duration(d, node, us, days, months)
                                   : make_interval(d, us, days, months);
    return CW_OK;
}

static bool put_infinite_interval(struct pg_encode *e, bool positive) {
    uint32_t v = positive ? INT32_MAX : (uint32_t)INT32_MIN;
    return pg_put64(e, positive ? (uint64_t)INT64_MAX : (uint64_t)INT64_MIN) && pg_put32(e, v) &&
           pg_put32(e, v);
}

/* Adds `n` times an integer that the struct holds. False when it is none, or the sum too large. */
static bool add(struct pg_encode *e, int64_t *sum, ERL_NIF_TERM term, int64_t n) {
    ErlNifSInt64 v;
    int64_t product;
    return enif_get_int64(e->env, term, &v) && !__builtin_mul_overflow(v, n, &product) &&
           !__builtin_add_overflow(*sum, product, sum);
}

static bool sum_interval(struct pg_encode *e, const ERL_NIF_TERM *f, int64_t *us, int64_t *days,
                         int64_t *months) {
    return add(e, months, f[0], 1) && add(e, days, f[1], 1) && add(e, us, f[2], SECOND) &&
           add(e, us, f[3], 1);
}

static bool sum_duration(struct pg_encode *e, const ERL_NIF_TERM *f, int64_t *us, int64_t *days,
                         int64_t *months) {
    int n;
    const ERL_NIF_TERM *micro;
    return add(e, months, f[0], 12) && add(e, months, f[1], 1) && add(e, days, f[2], 7) &&
           add(e, days, f[3], 1) && add(e, us, f[4], 3600 * SECOND) &&
           add(e, us, f[5], 60 * SECOND) && add(e, us, f[6], SECOND) &&
           enif_get_tuple(e->env, f[7], &n, &micro) && n == 2 && add(e, us, micro[0], 1);
}

static bool check_integers(struct pg_encode *e, const struct pg_node *node, const ERL_NIF_TERM *f,
                           unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (enif_term_type(e->env, f[i]) != ERL_NIF_TERM_TYPE_INTEGER)
            return PG_REFUSE(e, node, wrong, f[i]);
    return true;
}

bool pg_put_interval(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[8];
    int64_t us = 0, days = 0, months = 0;
    bool ok;
    if (is_infinite(e, term))
        return put_infinite_interval(e, term == e->lib->a_inf);
    if (pg_get_struct(e->env, e->lib, &e->lib->shapes[PG_DURATION], term, f))
        ok = check_integers(e, node, f, 7) && sum_duration(e, f, &us, &days, &months);
    else
        ok = pg_fields(e, node, PG_INTERVAL_, term, f) && check_integers(e, node, f, 4) &&
             sum_interval(e, f, &us, &days, &months);
    if (e->err)
        return false;
    if (!ok || days != (int32_t)days || months != (int32_t)months)
        return PG_REFUSE(e, node, out_of_range, term);
    return pg_put64(e, (uint64_t)us) && pg_put32(e, (uint32_t)days) &&
           pg_put32(e, (uint32_t)months);
}
