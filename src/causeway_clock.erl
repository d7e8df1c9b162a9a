%% @doc Version vectors, for Erlang: see `Causeway.Clock' (lib/causeway/clock.ex). A clock is its bytes.
-module(causeway_clock).

-export([new/1, merge/2, compare/2, to_list/1, tick/2]).

-type clock() :: causeway_doc:clock().

%% @doc A clock of counters by replica.
-spec new([{causeway_doc:replica(), non_neg_integer()}]) -> clock() | causeway_nif:error().
new(Counters) -> causeway_nif:clock_from_list(Counters).

%% @doc The least clock that contains both.
-spec merge(clock(), clock()) -> clock() | causeway_nif:error().
merge(A, B) -> causeway_nif:clock_merge(A, B).

%% @doc How the first stands to the second.
-spec compare(clock(), clock()) -> equal | before | 'after' | concurrent | causeway_nif:error().
compare(A, B) -> causeway_nif:clock_compare(A, B).

-spec to_list(clock()) -> [{causeway_doc:replica(), pos_integer()}] | causeway_nif:error().
to_list(Clock) -> causeway_nif:clock_to_list(Clock, false).

%% @doc The hybrid logical time after `Last', at a wall clock in milliseconds.
-spec tick(non_neg_integer(), non_neg_integer()) -> non_neg_integer() | causeway_nif:error().
tick(Last, NowMs) -> causeway_nif:hlc_tick(Last, NowMs).
