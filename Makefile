# Builds the C core, its NIF and the port program, and runs everything else. `make` lists the targets; Mix
# and rebar3 call `make build`. GNU make 3.81 or later, on Linux and macOS.
#
# Variables to override:
#
# CC, CFLAGS, LDFLAGS  as usual; CFLAGS is optimisation and warnings, what must be is added to it
# ERTS_INCLUDE_DIR     where erl_nif.h is (default: asked from erl)
# XXHASH_CFLAGS        how xxhash.h is found (default: asked from pkg-config)
# EI_DIR               Erlang's erl_interface, with include/ei.h and lib/libei.a (default: asked from erl)
# PQ_CFLAGS, PQ_LIBS   how libpq is found (default: asked from pkg-config, or pg_config)
# CLANG                the clang that builds the fuzz targets
# BUILD                where objects and programs go
# NIF, PORT            the library and the port program to build
# SANITIZE             as in -fsanitize=, e.g. address,undefined or thread; give it its own BUILD
# RUN                  what C tests run under, e.g. "valgrind -q --error-exitcode=1"
# FUZZ_SECONDS         how long each fuzz target runs
# KILLS, FAULTS        how often `make soak` kills a store; how many faults each of its tests with PostgreSQL makes
# V                    1 shows the commands
#
# Where it says `=` and not `?=`: a BUILD that happens to be in the environment is somebody else's.

CFLAGS ?= -O3 -Wall -Wextra -Wpedantic
CLANG ?= clang
BUILD = _build/c
NIF = priv/causeway_nif.so
PORT = priv/causeway_port
SANITIZE =
RUN =
FUZZ_SECONDS ?= 20
KILLS ?= 200
FAULTS ?= 100
V =

MAKEFLAGS += --no-print-directory

# Each is asked once, when the first file that needs it is compiled.
ERTS_INCLUDE_DIR ?= $(eval ERTS_INCLUDE_DIR := $$(shell erl -noshell \
  -eval 'io:put_chars(code:root_dir() ++ "/usr/include"), halt().'))$(ERTS_INCLUDE_DIR)
XXHASH_CFLAGS ?= $(eval XXHASH_CFLAGS := $$(shell \
  pkg-config --cflags libxxhash 2>/dev/null))$(XXHASH_CFLAGS)
EI_DIR ?= $(eval EI_DIR := $$(shell erl -noshell \
  -eval 'io:put_chars(case code:lib_dir(erl_interface) of {error, _} -> "none"; Dir -> Dir end), halt().'))$(EI_DIR)
PQ_CFLAGS ?= $(eval PQ_CFLAGS := $$(shell pkg-config --cflags libpq 2>/dev/null \
  || echo "-I$$$$(pg_config --includedir)"))$(PQ_CFLAGS)
PQ_LIBS ?= $(eval PQ_LIBS := $$(shell pkg-config --libs libpq 2>/dev/null \
  || echo "-L$$$$(pg_config --libdir) -lpq"))$(PQ_LIBS)

ALL_CFLAGS = -std=c11 -fPIC -fvisibility=hidden $(CFLAGS) $(XXHASH_CFLAGS)
ifneq ($(SANITIZE),)
ALL_CFLAGS += -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=$(SANITIZE)
endif

ifeq ($(shell uname -s),Darwin)
NIF_LDFLAGS = -bundle -undefined dynamic_lookup
else
NIF_LDFLAGS = -shared
endif

MIX = scripts/mix
Q = $(if $(V),,@)

# ---- what there is ----

objects_of = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))

CORE := $(call objects_of,c_src/core/*.c)
# What the NIF and the port program have in common about the write-ahead log.
WAL := $(call objects_of,c_src/wal/*.c)
NIF_OBJECTS := $(call objects_of,c_src/nif/*.c)
PORT_OBJECTS := $(call objects_of,c_src/port/*.c)
# What of it knows neither libpq nor ei, and is tested by itself.
PORT_PLAIN := $(patsubst %,$(BUILD)/c_src/port/port_%.o,frame mem request term)
# The harness: whatever in test/c is not a test program.
HARNESS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out test/c/test_%,$(wildcard test/c/*.c)))
TESTS := $(patsubst test/c/%.c,%,$(wildcard test/c/test_*.c))
FUZZ := $(patsubst test/fuzz/fuzz_%.c,%,$(wildcard test/fuzz/fuzz_*.c))
# Those named pg_ are clients of libpq.
BENCHES := $(patsubst bench/%.c,%,$(filter-out bench/pg_%,$(wildcard bench/*.c)))
PG_BENCHES := $(patsubst bench/%.c,%,$(wildcard bench/pg_*.c))

PRELOADS := $(patsubst test/preload/%.c,%,$(wildcard test/preload/*.c))

OBJECTS := $(CORE) $(WAL) $(NIF_OBJECTS) $(PORT_PLAIN) $(HARNESS) $(BENCHES:%=$(BUILD)/bench/%.o) \
  $(call objects_of,test/c/*.c test/fuzz/*.c test/preload/*.c)
PG_OBJECTS := $(PORT_OBJECTS) $(PG_BENCHES:%=$(BUILD)/bench/%.o)
SOURCES := $(wildcard c_src/*/*.[ch] test/c/*.[ch] test/fuzz/*.[ch] test/preload/*.[ch] bench/*.[ch])

# ---- what people type ----

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## documents that are edited apart; a shop on three machines; a ledger that follows PostgreSQL's log; a chat
	@MIX_ENV=prod $(MIX) run examples/demo.exs
	@MIX_ENV=prod $(MIX) run examples/shop_demo.exs
	@MIX_ENV=prod $(MIX) run examples/wal_demo.exs
	@MIX_ENV=prod $(MIX) run examples/chat_demo.exs

test: setup ## every test there is; installs what it needs on Debian when root
	@scripts/test

bench: setup $(BENCHES:%=$(BUILD)/bin/%) ## measure, beside the peers on the code path
	@$(call with_libpq,$(PG_BENCHES:%=$(BUILD)/bin/%))
	@for script in $(wildcard bench/*.exs); do MIX_ENV=prod BENCH_BIN=$(BUILD)/bin $(MIX) run $$script || exit; done

asan: asan-c asan-port asan-nif ## C tests, and the NIF inside erl with the port program, under ASan and UBSan

fuzz: ## fuzz every decoder, FUZZ_SECONDS each (needs clang)
	@$(MAKE) fuzz-run $(FUZZ_BUILD)

soak: setup ## kill stores in the middle of their work, KILLS times; PostgreSQL's servers, links and clients, FAULTS times
	@CAUSEWAY_KILLS=$(KILLS) $(MIX) test test/causeway/store/kill_test.exs
	@CAUSEWAY_FAULTS=$(FAULTS) CAUSEWAY_CONNECTS=10000 CAUSEWAY_LARGE=1 $(MIX) test $(wildcard test/causeway/postgres/*fault_test.exs test/causeway/ecto/*fault_test.exs test/causeway/log/*fault_test.exs)

format: ## format C and Elixir
	clang-format -i $(SOURCES)
	$(MIX) format

check: check-format check-c check-elixir ## formatting; compiler warnings as errors

clean: ## remove what was built
	rm -rf _build examples/*/_build $(NIF) $(PORT) erl_crash.dump

# ---- building ----

build: $(NIF)
	@$(call with_libpq,$(PORT))

objects: $(OBJECTS)
	@$(call with_libpq,$(PG_OBJECTS))

$(NIF): $(CORE) $(WAL) $(NIF_OBJECTS)
	@mkdir -p $(@D)
	@echo " LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(NIF_LDFLAGS) -o $@ $^ -lm

# The core is an archive here: of what the port program does not call, nothing is in it.
$(PORT): $(PORT_OBJECTS) $(WAL) $(BUILD)/libcore.a $(BUILD)/port_libs
	@mkdir -p $(@D)
	@echo " LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter-out %/port_libs,$^) $$(cat $(BUILD)/port_libs)

$(BUILD)/libcore.a: $(CORE)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

# with_libpq TARGETS: makes them if libpq and ei are here, and says what is missing if not.
with_libpq = if $(MAKE) $(BUILD)/port_libs >$(BUILD)/port_libs.log 2>&1; \
  then $(if $(strip $(1)),$(MAKE) $(1),true); \
  else echo " --  not built: $(firstword $(1)), and there is no Causeway.Postgres without it;" \
    "it needs libpq 14 or later and Erlang's ei (Debian: libpq-dev erlang-dev)"; fi

# What to link with, found out by linking a small program; jemalloc if it is here. With a sanitizer, which
# brings an allocator of its own, it is left out.
$(BUILD)/port_libs: $(BUILD)/flags
	@printf '%s\n' '#include <libpq-fe.h>' '#include <ei.h>' '#ifndef LIBPQ_HAS_PIPELINING' \
	  '#error' '#endif' 'int main(void) { return ei_init() + PQlibVersion() == 0; }' >$@.c
	@for jemalloc in $(if $(SANITIZE),,-ljemalloc) ''; do \
	  libs="$(PQ_LIBS) -L$(EI_DIR)/lib -lei $$jemalloc -lpthread -ldl -lm"; \
	  $(CC) $(ALL_CFLAGS) $(PORT_CFLAGS) $(LDFLAGS) -o $@.probe $@.c $$libs && echo "$$libs" >$@ && break; \
	done

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo " CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(OWN_CFLAGS) -MMD -MP -c -o $@ $<

# The boundary: Erlang's headers are for the NIF and the port program, libpq's for the latter alone. Some
# systems have them in /usr/include, where every compiler finds them; with its guard defined already, a
# header is empty.
PORT_CFLAGS = -D_GNU_SOURCE -D__ERL_NIF_H__ $(PQ_CFLAGS) -I$(EI_DIR)/include
$(NIF_OBJECTS): OWN_CFLAGS = -DEI_H -DLIBPQ_FE_H -I$(ERTS_INCLUDE_DIR)
$(CORE) $(WAL): OWN_CFLAGS = -D__ERL_NIF_H__ -DEI_H -DLIBPQ_FE_H
$(PG_OBJECTS): OWN_CFLAGS = $(PORT_CFLAGS)
$(PORT_PLAIN): OWN_CFLAGS = -D_GNU_SOURCE -D__ERL_NIF_H__ -DEI_H -DLIBPQ_FE_H

$(BUILD)/bin/test_%: $(BUILD)/test/c/test_%.o $(HARNESS) $(PORT_PLAIN) $(CORE) $(WAL)
	$(link)
$(BUILD)/bin/replay_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/test/fuzz/replay.o $(HARNESS) $(PORT_PLAIN) $(CORE) $(WAL)
	$(link)
$(BUILD)/bin/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(HARNESS) $(PORT_PLAIN) $(CORE) $(WAL)
	$(link) -fsanitize=fuzzer
$(BUILD)/bin/seeds: $(BUILD)/test/fuzz/seeds.o $(HARNESS) $(CORE) $(WAL)
	$(link)
$(BENCHES:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/bench/%.o $(CORE)
	$(link)
$(PG_BENCHES:%=$(BUILD)/bin/%): LIBS = $$(cat $(BUILD)/port_libs)
$(PG_BENCHES:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/bench/%.o $(WAL) $(CORE) $(BUILD)/port_libs
	$(link)

define link
@mkdir -p $(@D)
@echo " LD  $@"
$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS) -lpthread -lm
endef

# Holds the flags of the last build; other flags, and everything is built anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@flags='$(CC) $(ALL_CFLAGS) $(LDFLAGS)'; [ "$$(cat $@ 2>/dev/null)" = "$$flags" ] || echo "$$flags" >$@

clean-nif:
	rm -rf $(BUILD) $(NIF) $(PORT)

-include $(OBJECTS:.o=.d) $(PG_OBJECTS:.o=.d)

# ---- testing ----

setup:
	@scripts/setup

c-test: $(TESTS:%=run/%)

$(TESTS:%=run/%): run/%: $(BUILD)/bin/%
	@$(RUN) $< || { echo "not ok $*"; exit 1; }

# What test/support/preload.ex puts before the C library of a VM.
$(PRELOADS:%=preload/%): preload/%: $(BUILD)/lib/%.so

$(PRELOADS:%=$(BUILD)/lib/%.so): $(BUILD)/lib/%.so: $(BUILD)/test/preload/%.o
	@mkdir -p $(@D)
	@echo " LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -shared -o $@ $< -ldl

# The corpus and every past crash, through the fuzz targets as plain programs.
fuzz-replay: $(FUZZ:%=replay/%)

fuzz_inputs = $(wildcard test/fuzz/corpus/$* test/vectors/crashers/$*)

$(FUZZ:%=replay/%): replay/%: $(BUILD)/bin/replay_%
	@$(RUN) $< $$(find $(fuzz_inputs) /dev/null -type f) >$<.log 2>&1 \
	  || { tail -n 60 $<.log; echo "not ok replay $*"; exit 1; }
	@tail -n 1 $<.log

# The corpus starts with `make fuzz-seeds`. New inputs gather in the build; `make fuzz-keep` adds those
# that reach new code.
FUZZ_BUILD = CC=$(CLANG) BUILD=_build/fuzz SANITIZE=fuzzer-no-link,address,undefined

fuzz-run: $(FUZZ:%=fuzz/%)

$(FUZZ:%=fuzz/%): fuzz/%: $(BUILD)/bin/fuzz_%
	@mkdir -p $(BUILD)/corpus/$* $(BUILD)/crashes
	@echo "fuzzing $* for $(FUZZ_SECONDS) s"
	@$< -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
	  -artifact_prefix=$(BUILD)/crashes/$*- $(BUILD)/corpus/$* $(fuzz_inputs) >$<.log 2>&1 \
	  || { tail -n 60 $<.log; echo "not ok fuzz $*"; exit 1; }
	@sed -n 's/^stat::number_of_executed_units: */ok fuzz $*: runs /p' $<.log

fuzz-seeds: $(BUILD)/bin/seeds
	@$< test/fuzz/corpus

fuzz-keep:
	@$(MAKE) fuzz-merge $(FUZZ_BUILD)

fuzz-merge: $(FUZZ:%=merge/%)

$(FUZZ:%=merge/%): merge/%: $(BUILD)/bin/fuzz_%
	@mkdir -p $(BUILD)/corpus/$* test/fuzz/corpus/$*
	$< -merge=1 test/fuzz/corpus/$* $(BUILD)/corpus/$*

# The harness counts allocations itself; leak detection needs ptrace, which containers often refuse.
ASAN_BUILD = BUILD=_build/asan SANITIZE=address,undefined

asan-c:
	@ASAN_OPTIONS=detect_leaks=0 $(MAKE) c-test fuzz-replay $(ASAN_BUILD)

asan-port:
	@$(MAKE) build $(ASAN_BUILD) NIF=_build/asan/causeway_nif.so PORT=_build/asan/causeway_port

asan-nif: asan-port
	@scripts/nif_asan _build/asan/causeway_nif.so _build/asan/causeway_port

# ---- checking ----

# clang-format's releases differ in small things; where there is none, CI has the say.
check-format:
	@if command -v clang-format >/dev/null; \
	  then clang-format --dry-run -Werror --ferror-limit=1 $(SOURCES); \
	  else echo "no clang-format here: the C sources' format is not checked"; fi
	@$(MIX) format --check-formatted

# The core and c_src/wal include C standard headers and xxhash.h, nothing else.
check-c:
	@! grep -n '#include <' c_src/core/*.[ch] $(wildcard c_src/wal/*.[ch]) | grep -vE \
	  '<(assert|errno|float|inttypes|limits|math|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|time|xxhash)\.h>'
	@for cc in gcc clang; do command -v $$cc >/dev/null || continue; \
	  $(MAKE) objects CC=$$cc BUILD=_build/check-$$cc CFLAGS='$(CFLAGS) -Werror' || exit; done

# No dialyzer: its table of OTP and Elixir takes minutes to build, which is not cheap for every change.
check-elixir:
	@mkdir -p _build/check
	@erlc -Wall -Werror -o _build/check src/*.erl
	@MIX_ENV=test $(MIX) compile --force --warnings-as-errors

FORCE:
.PHONY: FORCE help demo test bench asan fuzz soak format check clean build objects clean-nif setup c-test \
  fuzz-replay fuzz-run fuzz-seeds fuzz-keep fuzz-merge asan-c asan-port asan-nif check-format check-c check-elixir \
  $(TESTS:%=run/%) $(PRELOADS:%=preload/%) $(FUZZ:%=replay/%) $(FUZZ:%=fuzz/%) $(FUZZ:%=merge/%)
