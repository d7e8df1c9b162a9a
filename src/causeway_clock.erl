%% @doc Version vectors, for Erlang: see `Causeway.Clock' (lib/causeway/clock.ex). A clock is its bytes; those from
%% elsewhere go through {@link decode/1}. The other calls return their result, and raise a `causeway_doc:reason()'
%% when what they are given is no clock, or has what cannot be in one.
-module(causeway_clock).

-export([new/1, merge/2, compare/2, contains/2, get/2, to_list/1, to_list/2, decode/1, tick/2]).

-type clock() :: causeway_doc:clock().

%% @doc A clock of counters by replica; zeros are left out, and of one replica the greatest counts.
-spec new([{causeway_doc:replica(), non_neg_integer()}]) -> clock().
new(Counters) -> or_raise(causeway_nif:clock_from_list(Counters), [Counters]).

%% @doc The least clock that contains both.
-spec merge(clock(), clock()) -> clock().
merge(A, B) -> or_raise(causeway_nif:clock_merge(A, B), [A, B]).

%% @doc How the first stands to the second.
-spec compare(clock(), clock()) -> equal | before | 'after' | concurrent.
compare(A, B) -> or_raise(causeway_nif:clock_compare(A, B), [A, B]).

%% @doc Whether all that the second has seen, the first has too.
-spec contains(clock(), clock()) -> boolean().
contains(A, B) ->
    Order = compare(A, B),
    Order =:= equal orelse Order =:= 'after'.

%% @doc The counter of one replica, 0 when it is not there.
-spec get(clock(), causeway_doc:replica()) -> non_neg_integer().
get(Clock, Replica) -> or_raise(causeway_nif:clock_get(Clock, Replica), [Clock, Replica]).

%% @doc The counters by replica, in no order. Raises `{unknown_atom, Name}' for a name that is an atom which this VM
%% does not have.
-spec to_list(clock()) -> [{causeway_doc:replica(), pos_integer()}].
to_list(Clock) -> to_list(Clock, []).

%% @doc The same; with `{atoms, create}' such atoms are made.
-spec to_list(clock(), [{atoms, create}]) -> [{causeway_doc:replica(), pos_integer()}].
to_list(Clock, []) -> or_raise(causeway_nif:clock_to_list(Clock, false), [Clock]);
to_list(Clock, [{atoms, create}]) -> or_raise(causeway_nif:clock_to_list(Clock, true), [Clock]);
to_list(_, Opts) -> erlang:error({bad_option, Opts}).

%% @doc The clock of bytes that came from elsewhere, if they are one.
-spec decode(binary()) -> {ok, clock()} | causeway_doc:error().
decode(Bytes) ->
    case causeway_nif:clock_to_list(Bytes, false) of
        {error, {unknown_atom, _}} -> {ok, Bytes};
        {error, _} = Error -> Error;
        _ -> {ok, Bytes}
    end.

%% @doc The hybrid logical time after `Last', at a wall clock in milliseconds.
-spec tick(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
tick(Last, NowMs) -> or_raise(causeway_nif:hlc_tick(Last, NowMs), [Last, NowMs]).

or_raise({error, Reason}, Args) -> erlang:error(Reason, Args);
or_raise(Result, _) -> Result.
