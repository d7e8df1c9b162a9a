/* Connecting, without blocking but for the resolution of names, for which an alarm ends the
 * process.
 *
 * libpq goes from host to host by itself when one refuses, and knows no deadline when it is polled:
 * a host that does not answer would take all the time there is. So the time is divided over the
 * hosts, and one that has used its part is left out: connecting begins again with the others, those
 * not yet tried first. What target_session_attrs asks for is libpq's matter all the same. */
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "port_answer.h"
#include "port_mem.h"

#define RESOLVE_MOST 60000 /* ms that libpq may block for */
#define MAX_HOSTS 64       /* of more, the later ones are only reached by refusals of the earlier */

struct host {
    char *name; /* each may be NULL: not given */
    char *addr;
    char *port;
};

struct connect {
    const char **keys; /* ends with NULL, and has room for what start_attempt adds */
    const char **values;
    size_t n;
    char *strings; /* all the above point into it */
    size_t strings_n;
    bool is_string;   /* all or some of the parameters are in a connection string */
    bool is_doubtful; /* what libpq takes for hosts or names in it may be of the password */

    struct host hosts[MAX_HOSTS];
    size_t hosts_n; /* 0 until the first attempt has told */
    size_t left;    /* of them not tried in this attempt, or being tried */
    char *current;  /* host and port being tried */
    int64_t host_deadline;
    struct cw_buf dropped; /* what there is to say of the hosts left out */
    PostgresPollingStatusType poll;
};

#define ADDED 6 /* host, hostaddr, port, client_encoding, fallback_application_name, NULL */

/* ---- hosts ---- */

static char *copy(const char *s, size_t n) {
    char *c = port_alloc(n + 1);
    memcpy(c, s, n);
    c[n] = 0;
    return c;
}

/* The element of a list with commas, or NULL; of a list of one, always that when `repeat`. */
static char *element(const char *list, size_t at, bool repeat) {
    if (!list)
        return NULL;
    if (repeat && !strchr(list, ','))
        at = 0;
    for (; at; at--) {
        list = strchr(list, ',');
        if (!list++)
            return NULL;
    }
    return copy(list, strcspn(list, ","));
}

static size_t elements(const char *list) {
    size_t n = 1;
    for (; *list; list++)
        n += *list == ',';
    return n;
}

static const char *option(const PQconninfoOption *options, const char *key) {
    for (; options->keyword; options++)
        if (strcmp(options->keyword, key) == 0)
            return options->val && *options->val ? options->val : NULL;
    return NULL;
}

/* The hosts that libpq made out of parameters, environment and service file. */
static void find_hosts(struct connect *c, PGconn *conn) {
    PQconninfoOption *options = PQconninfo(conn);
    if (!options)
        port_out_of_memory();
    const char *name = option(options, "host"), *addr = option(options, "hostaddr");
    const char *port = option(options, "port");
    size_t n = addr ? elements(addr) : name ? elements(name) : 1;
    c->hosts_n = n < MAX_HOSTS ? n : MAX_HOSTS;
    for (size_t i = 0; i < c->hosts_n; i++)
        c->hosts[i] =
            (struct host){element(name, i, false), element(addr, i, false), element(port, i, true)};
    PQconninfoFree(options);
}

static void free_host(struct host *host) {
    port_free(host->name);
    port_free(host->addr);
    port_free(host->port);
}

static bool is_trying(const struct host *host, PGconn *conn) {
    const char *name = host->name && *host->name ? host->name : host->addr;
    const char *now = PQhost(conn), *port = PQport(conn);
    return now && name && strcmp(name, now) == 0 &&
           (!host->port || !port || strcmp(host->port, port) == 0);
}

static size_t host_tried(const struct connect *c, PGconn *conn) {
    size_t i = 0;
    while (i + 1 < c->hosts_n && !is_trying(&c->hosts[i], conn))
        i++;
    return i;
}

/* Leaves out host `at`; those behind it come first. */
static void drop_host(struct connect *c, size_t at) {
    struct host rest[MAX_HOSTS];
    size_t n = 0;
    for (size_t i = at + 1; i < c->hosts_n; i++)
        rest[n++] = c->hosts[i];
    for (size_t i = 0; i < at; i++)
        rest[n++] = c->hosts[i];
    free_host(&c->hosts[at]);
    memcpy(c->hosts, rest, n * sizeof *rest);
    c->hosts_n = n;
}

/* The list of one thing of every host; NULL when none has it. */
static char *join(const struct connect *c, size_t field) {
    struct cw_buf buf;
    bool any = false;
    cw_buf_init(&buf, &port_mem, NULL, 0);
    for (size_t i = 0; i < c->hosts_n; i++) {
        const char *s = *(char *const *)((const char *)&c->hosts[i] + field);
        any |= s != NULL;
        if (i)
            cw_buf_byte(&buf, ',');
        cw_buf_put(&buf, s, s ? strlen(s) : 0);
    }
    char *list = any ? copy((char *)buf.p, buf.n) : NULL;
    cw_buf_free(&buf);
    return list;
}

/* ---- time ---- */

/* Name resolution does not return before it is done; ending the process is the way out of it. */
static void on_alarm(int signal) {
    (void)signal;
    _exit(PORT_EXIT_RESOLVE);
}

static void set_alarm(int64_t at) {
    int64_t ms = at - port_now();
    ms = ms < 1 ? 1 : ms;
    struct itimerval timer = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void clear_alarm(void) {
    struct itimerval timer = {.it_value = {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* A little later than the deadline, which is noticed first when nothing blocks. Without one there
 * is an end all the same: while names are resolved nobody sees that the VM has gone. */
static int64_t alarm_time(const struct port *port) {
    int64_t most = port_now() + RESOLVE_MOST;
    return port->deadline < most ? port->deadline + 100 : most;
}

/* When libpq has gone to another host, that gets its part of the time that is left. */
static void note_host(struct port *port, struct connect *c) {
    if (port->deadline == PORT_NEVER)
        return;
    const char *host = PQhost(port->conn), *at = PQport(port->conn);
    char now[512];
    snprintf(now, sizeof now, "%s port %s", host ? host : "", at ? at : "");
    if (c->current && strcmp(c->current, now) == 0)
        return;
    if (c->current && c->left > 1)
        c->left--;
    port_free(c->current);
    c->current = copy(now, strlen(now));
    int64_t rest = port->deadline - port_now();
    c->host_deadline = c->left > 1 ? port_now() + rest / (int64_t)c->left : PORT_NEVER;
}

/* ---- attempts ---- */

static void on_notice(void *arg, const PGresult *res) {
    struct port *port = arg;
    port_tell_notice(port, res);
    if (port->job->notice)
        port->job->notice(port, res);
}

static void add(struct connect *c, size_t *n, const char *key, const char *value) {
    if (!value)
        return;
    c->keys[*n] = key;
    c->values[*n] = value;
    ++*n;
}

static void start_attempt(struct port *port, struct connect *c) {
    char *name = NULL, *addr = NULL, *at = NULL;
    size_t n = c->n;
    if (c->hosts_n) {
        name = join(c, offsetof(struct host, name));
        addr = join(c, offsetof(struct host, addr));
        at = join(c, offsetof(struct host, port));
        add(c, &n, "host", name);
        add(c, &n, "hostaddr", addr);
        add(c, &n, "port", at);
    }
    add(c, &n, "client_encoding", "UTF8");
    add(c, &n, "fallback_application_name", "causeway");
    c->keys[n] = c->values[n] = NULL;
    set_alarm(alarm_time(port));
    port->conn = PQconnectStartParams(c->keys, c->values, 1);
    clear_alarm();
    port_free(name);
    port_free(addr);
    port_free(at);
    if (!port->conn)
        port_out_of_memory();
    /* That way a refusal's SQLSTATE is in its text, and nowhere else. */
    PQsetErrorVerbosity(port->conn, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(port->conn, on_notice, port);
    c->poll = PQstatus(port->conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    if (!c->hosts_n)
        find_hosts(c, port->conn);
    c->left = c->hosts_n;
    port_free(c->current);
    c->current = NULL;
}

static const char in_doubt[] =
    "what libpq says is not shown, as the connection URI has a further @, or a port that is none, "
    "and so parts of a password may stand where hosts and names do: in a user's name or password "
    "@ is written as %40, / as %2F and : as %3A";

static void fail(struct port *port, const char *why, const char *message) {
    struct connect *c = port->work;
    cw_buf_put(&c->dropped, message, strlen(message) + 1);
    port_tell_failed(port, port->id, why, c->is_doubtful ? in_doubt : (const char *)c->dropped.p);
    port_job_end(port);
    port->leaving = true;
    port->leave_at = port_now() + PORT_LEAVE_GRACE;
}

static void connected(struct port *port) {
    PQsetErrorVerbosity(port->conn, PQERRORS_DEFAULT);
    if (PQsetnonblocking(port->conn, 1))
        port_out_of_memory();
    port_tell_connected(port, port->id);
    port_job_end(port);
}

/* What libpq could not make sense of has left no parameters behind. */
static const char *reason(const struct port *port) {
    return PQdb(port->conn) ? "refused" : "options";
}

/* What libpq says of a string that it cannot read has pieces of it, and so may have the password.
 */
static const char *complaint(const struct port *port) {
    const struct connect *c = port->work;
    return c->is_string && !PQdb(port->conn) ? "libpq cannot make sense of the connection string"
                                             : PQerrorMessage(port->conn);
}

static void settle(struct port *port) {
    struct connect *c = port->work;
    if (c->poll == PGRES_POLLING_OK)
        connected(port);
    else if (c->poll == PGRES_POLLING_FAILED)
        fail(port, reason(port), complaint(port));
    else
        note_host(port, c);
}

static void advance(struct port *port) {
    struct connect *c = port->work;
    set_alarm(alarm_time(port));
    c->poll = PQconnectPoll(port->conn);
    clear_alarm();
    settle(port);
}

static short wants(struct port *port) {
    struct connect *c = port->work;
    return c->poll == PGRES_POLLING_READING ? POLLIN : POLLOUT;
}

static void say_timeout(struct port *port, struct connect *c) {
    char line[700];
    snprintf(line, sizeof line, "connection to server at %s failed: no answer in time\n",
             c->current ? c->current : "(none)");
    cw_buf_put(&c->dropped, line, strlen(line));
    (void)port;
}

static void stop(struct port *port) {
    struct connect *c = port->work;
    bool timeout = port->stop == PORT_STOP_TIMEOUT;
    if (timeout)
        say_timeout(port, c);
    fail(port, timeout ? "timeout" : "cancelled", "");
}

static int64_t wake(const struct port *port) {
    return ((const struct connect *)port->work)->host_deadline;
}

/* The host has had its time. */
static void tick(struct port *port) {
    struct connect *c = port->work;
    say_timeout(port, c);
    c->host_deadline = PORT_NEVER;
    drop_host(c, host_tried(c, port->conn));
    PQfinish(port->conn);
    start_attempt(port, c);
    settle(port);
}

static void free_connect(void *work) {
    struct connect *c = work;
    port_wipe(c->strings, c->strings_n);
    port_free(c->strings);
    port_free((void *)c->keys);
    port_free((void *)c->values);
    port_free(c->current);
    for (size_t i = 0; i < c->hosts_n; i++)
        free_host(&c->hosts[i]);
    cw_buf_free(&c->dropped);
    port_free(c);
}

const struct port_job port_connect_job = {.wants = wants,
                                          .advance = advance,
                                          .stop = stop,
                                          .wake = wake,
                                          .tick = tick,
                                          .free = free_connect,
                                          .raw = true};

/* ---- the request ---- */

static const char *take_string(struct connect *c, struct cw_bytes s) {
    char *at = c->strings + c->strings_n;
    memcpy(at, s.p, s.n);
    at[s.n] = 0;
    c->strings_n += s.n + 1;
    return at;
}

/* libpq takes a database's name for a string when it looks like one: with less doubt than this. */
static bool is_string(const char *key, const char *value) {
    return strcmp(key, "dbname") == 0 && (strchr(value, '=') || strstr(value, "://"));
}

/* What comes behind the user's name and password in a URI, as libpq takes it. NULL when it is none.
 */
static const char *hosts_of(const char *value) {
    const char *hosts = strstr(value, "://");
    if (!hosts)
        return NULL;
    hosts += 3;
    size_t user = strcspn(hosts, "@/");
    return hosts[user] == '@' ? hosts + user + 1 : hosts;
}

/* A password with an @, a / or a : that is not written as it should be ends too early; its rest is
 * then a host, a port or the name of a database, which errors tell. */
static bool is_doubtful(const char *value) {
    const char *hosts = hosts_of(value);
    if (!hosts)
        return false;
    bool port = false, odd = strchr(hosts, '@') != NULL, address = false;
    for (; *hosts && !strchr("/?", *hosts) && !odd; hosts++) {
        address = *hosts == '[' || (address && *hosts != ']');
        odd = port && *hosts != ',' && (*hosts < '0' || *hosts > '9');
        port = !address && (*hosts == ':' || (port && *hosts != ','));
    }
    return odd;
}

static struct connect *make_connect(struct port_pairs pairs) {
    struct connect *c = port_alloc(sizeof *c);
    *c = (struct connect){.host_deadline = PORT_NEVER};
    cw_buf_init(&c->dropped, &port_mem, NULL, 0);
    size_t room = pairs.n + ADDED;
    c->keys = port_alloc(room * sizeof *c->keys);
    c->values = port_alloc(room * sizeof *c->values);
    c->strings = port_alloc((size_t)(pairs.rest.end - pairs.rest.p));
    for (uint32_t i = 0; i < pairs.n; i++) {
        struct cw_bytes key, value;
        port_next_pair(&pairs, &key, &value);
        const char *k = take_string(c, key);
        const char *v = take_string(c, value);
        c->is_string |= is_string(k, v);
        c->is_doubtful |= is_string(k, v) && is_doubtful(v);
        add(c, &c->n, k, v);
    }
    return c;
}

bool port_connect(struct port *port, const struct port_request *request) {
    struct port_pairs pairs;
    if (!port_read_connect(request, &pairs))
        return false;
    struct connect *c = make_connect(pairs);
    port_in_wipe(&port->in);
    port_job_start(port, &port_connect_job, c, request);
    start_attempt(port, c);
    settle(port);
    return true;
}
