# Builds the C core and its NIF, and runs everything else. `make` lists the targets; Mix and rebar3
# call `make build`. GNU make 3.81 or later, on Linux and macOS.
#
# Variables to override:
#
# CC, CFLAGS, LDFLAGS  as usual; CFLAGS is optimisation and warnings, what must be is added to it
# ERTS_INCLUDE_DIR     where erl_nif.h is (default: asked from erl)
# XXHASH_CFLAGS        how xxhash.h is found (default: asked from pkg-config)
# CLANG                the clang that builds the fuzz targets
# BUILD                where objects and programs go
# NIF                  the library to build
# SANITIZE             as in -fsanitize=, e.g. address,undefined or thread; give it its own BUILD
# RUN                  what C tests run under, e.g. "valgrind -q --error-exitcode=1"
# FUZZ_SECONDS         how long each fuzz target runs
# KILLS                how often `make soak` kills a store
# V                    1 shows the commands
#
# Where it says `=` and not `?=`: a BUILD that happens to be in the environment is somebody else's.

CFLAGS ?= -O3 -Wall -Wextra -Wpedantic
CLANG ?= clang
BUILD = _build/c
NIF = priv/causeway_nif.so
SANITIZE =
RUN =
FUZZ_SECONDS ?= 20
KILLS ?= 200
V =

MAKEFLAGS += --no-print-directory

# Each is asked once, when the first file that needs it is compiled.
ERTS_INCLUDE_DIR ?= $(eval ERTS_INCLUDE_DIR := $$(shell erl -noshell \
  -eval 'io:put_chars(code:root_dir() ++ "/usr/include"), halt().'))$(ERTS_INCLUDE_DIR)
XXHASH_CFLAGS ?= $(eval XXHASH_CFLAGS := $$(shell \
  pkg-config --cflags libxxhash 2>/dev/null))$(XXHASH_CFLAGS)

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
NIF_OBJECTS := $(call objects_of,c_src/nif/*.c)
# The harness: whatever in test/c is not a test program.
HARNESS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out test/c/test_%,$(wildcard test/c/*.c)))
TESTS := $(patsubst test/c/%.c,%,$(wildcard test/c/test_*.c))
FUZZ := $(patsubst test/fuzz/fuzz_%.c,%,$(wildcard test/fuzz/fuzz_*.c))
BENCHES := $(patsubst bench/%.c,%,$(wildcard bench/*.c))

PRELOADS := $(patsubst test/preload/%.c,%,$(wildcard test/preload/*.c))

OBJECTS := $(NIF_OBJECTS) $(call objects_of,c_src/core/*.c test/c/*.c test/fuzz/*.c test/preload/*.c bench/*.c)
SOURCES := $(wildcard c_src/*/*.[ch] test/c/*.[ch] test/fuzz/*.[ch] test/preload/*.[ch] bench/*.[ch])

# ---- what people type ----

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## three documents edit a real data set apart; a shop on three machines, one of which is killed
	@MIX_ENV=prod $(MIX) run examples/demo.exs
	@MIX_ENV=prod $(MIX) run examples/shop_demo.exs

test: setup ## every test there is; installs what it needs on Debian when root
	@scripts/test

bench: setup $(BENCHES:%=$(BUILD)/bin/%) ## measure, beside the peers on the code path
	@for script in $(wildcard bench/*.exs); do MIX_ENV=prod BENCH_BIN=$(BUILD)/bin $(MIX) run $$script || exit; done

asan: asan-c asan-nif ## C tests, and the NIF inside erl, under ASan and UBSan

fuzz: ## fuzz every decoder, FUZZ_SECONDS each (needs clang)
	@$(MAKE) fuzz-run $(FUZZ_BUILD)

soak: setup ## kill stores in the middle of their work, KILLS times
	@CAUSEWAY_KILLS=$(KILLS) $(MIX) test test/causeway/store/kill_test.exs

format: ## format C and Elixir
	clang-format -i $(SOURCES)
	$(MIX) format

check: check-format check-c check-elixir ## formatting; compiler warnings as errors

clean: ## remove what was built
	rm -rf _build examples/*/_build $(NIF) erl_crash.dump

# ---- building ----

build: $(NIF)

objects: $(OBJECTS)

$(NIF): $(CORE) $(NIF_OBJECTS)
	@mkdir -p $(@D)
	@echo " LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(NIF_LDFLAGS) -o $@ $^ -lm

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo " CC  $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(OWN_CFLAGS) -MMD -MP -c -o $@ $<

# The boundary: Erlang's headers are for the NIF alone. Some systems have erl_nif.h in /usr/include,
# where every compiler finds it; with its guard defined already, it is empty there.
$(NIF_OBJECTS): OWN_CFLAGS = -I$(ERTS_INCLUDE_DIR)
$(CORE): OWN_CFLAGS = -D__ERL_NIF_H__

$(BUILD)/bin/test_%: $(BUILD)/test/c/test_%.o $(HARNESS) $(CORE)
	$(link)
$(BUILD)/bin/replay_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/test/fuzz/replay.o $(HARNESS) $(CORE)
	$(link)
$(BUILD)/bin/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(HARNESS) $(CORE)
	$(link) -fsanitize=fuzzer
$(BUILD)/bin/seeds: $(BUILD)/test/fuzz/seeds.o $(HARNESS) $(CORE)
	$(link)
$(BENCHES:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/bench/%.o $(CORE)
	$(link)

define link
@mkdir -p $(@D)
@echo " LD  $@"
$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ -lpthread -lm
endef

# Holds the flags of the last build; other flags, and everything is built anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@flags='$(CC) $(ALL_CFLAGS) $(LDFLAGS)'; [ "$$(cat $@ 2>/dev/null)" = "$$flags" ] || echo "$$flags" >$@

clean-nif:
	rm -rf $(BUILD) $(NIF)

-include $(OBJECTS:.o=.d)

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

asan-nif:
	@$(MAKE) build $(ASAN_BUILD) NIF=_build/asan/causeway_nif.so
	@scripts/nif_asan _build/asan/causeway_nif.so

# ---- checking ----

# clang-format's releases differ in small things; where there is none, CI has the say.
check-format:
	@if command -v clang-format >/dev/null; \
	  then clang-format --dry-run -Werror --ferror-limit=1 $(SOURCES); \
	  else echo "no clang-format here: the C sources' format is not checked"; fi
	@$(MIX) format --check-formatted

# The core includes C standard headers and xxhash.h, nothing else.
check-c:
	@! grep -n '#include <' c_src/core/*.[ch] | grep -vE \
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
  fuzz-replay fuzz-run fuzz-seeds fuzz-keep fuzz-merge asan-c asan-nif check-format check-c check-elixir \
  $(TESTS:%=run/%) $(PRELOADS:%=preload/%) $(FUZZ:%=replay/%) $(FUZZ:%=fuzz/%) $(FUZZ:%=merge/%)
