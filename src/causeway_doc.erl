%% @doc Documents that merge, for Erlang. See `Causeway.Doc' (lib/causeway/doc.ex) for what a document is, its
%% kinds and operations, which are the same here. What differs:
%%
%% <ul>
%% <li>Nothing is `undefined' in {@link get/2} and `absent' in {@link diff/2}; a set is a list, in the order of
%% FORMAT.md; a clock is its bytes.</li>
%% <li>What can fail for good reasons returns `{ok, Result}' or `{error, Reason}': updates, merges, and all that
%% takes bytes or a clock. The rest returns its result, and raises `Reason' when it was called wrongly: with a name
%% that cannot be one, a path that is none, or on an atom that this VM does not have.</li>
%% <li>Reasons name an operation by its number in the list, from 0, those inside an `in' counted one by one;
%% {@link format_error/1} makes a sentence of one. `Causeway.Error' names the operations themselves.</li>
%% <li>A wrong option raises `{bad_option, Option}'.</li>
%% </ul>
-module(causeway_doc).

-export([
    new/1,
    fork/2,
    update/2,
    update/3,
    get/2, get/3, get/4,
    fetch/2, fetch/3,
    value/1, value/2,
    is_member/3, is_member/4,
    rights/2,
    merge/2,
    delta/2,
    apply_delta/2,
    join_deltas/2,
    diff/2, diff/3,
    clock/1,
    hash/1,
    encode/1,
    decode/2,
    info/1,
    format_error/1
]).

-export_type([doc/0, replica/0, path/0, op/0, kind/0, clock/0, change/0, option/0, error/0, reason/0]).

-type doc() :: causeway_nif:doc().
-type replica() :: causeway_nif:name().
-type path() :: causeway_nif:path().
-type kind() :: causeway_nif:kind().
-type clock() :: binary().
-type change() :: causeway_nif:change().
-type option() :: {kind, kind()} | {atoms, create}.
-type error() :: {error, reason()}.
%% Numbers of operations count from 0; of fields, how many of the path were good.
-type reason() ::
    enomem
    | etruncated | emalformed | eversion
    | egap | eduplicate | ereplica | eclock | erange | elimit
    | {ekind, {Op :: integer(), Fields :: integer(), Have :: kind() | nil, Want :: kind() | nil}}
    | {eop, {Op :: integer(), kind() | nil}}
    | {epath, {Op :: integer(), Fields :: integer()}}
    | {erights, {Op :: integer(), Here :: integer(), Elsewhere :: integer()}}
    | {erange | elimit, integer() | op()}
    | {egap, {replica(), Seen :: integer(), Needed :: integer()}}
    | {bad_op | bad_path | bad_replica | bad_entry | bad_option, term()}
    | {bad_term, {term(), Where :: term()}}
    | {unknown_atom, binary()}.
-type op() ::
    {put, path(), term()}
    | {put, path(), term(), kind()}
    | {increment | decrement, path()}
    | {increment | decrement, path(), integer()}
    | {increment | decrement, path(), integer(), kind()}
    | {transfer, path(), non_neg_integer(), replica()}
    | {add | remove, path(), term()}
    | {add | remove, path(), term(), kind()}
    | {enable | disable, path()}
    | {enable | disable, path(), kind()}
    | {reset, path()}
    | {delete, path()}
    | {delete, path(), kind()}
    | {in, path(), map | map_grow, [op()]}.

%% @doc An empty document.
-spec new(replica()) -> doc().
new(Replica) -> or_raise(causeway_nif:doc_new(Replica), [Replica]).

%% @doc The same content, to be edited under another name.
-spec fork(doc(), replica()) -> doc().
fork(Doc, Replica) -> or_raise(causeway_nif:doc_fork(Doc, Replica), [Doc, Replica]).

%% @doc One operation, or several as one edit, all or none.
-spec update(doc(), op() | [op()]) -> {ok, doc()} | error().
update(Doc, Ops) -> ok(causeway_nif:doc_update(Doc, Ops)).

%% @doc The same by who has read `Seen', an earlier state: what has come since is left alone.
-spec update(doc(), doc(), op() | [op()]) -> {ok, doc()} | error().
update(Doc, Seen, Ops) -> ok(causeway_nif:doc_update(Doc, Seen, Ops)).

%% @doc What is at a path, or `undefined'.
-spec get(doc(), path()) -> term().
get(Doc, Path) -> get(Doc, Path, undefined).

%% @doc What is at a path, or `Default'.
-spec get(doc(), path(), Default :: term()) -> term().
get(Doc, Path, Default) -> get(Doc, Path, Default, []).

%% @doc The same, of the kind in `Opts', or with atoms made that this VM does not have.
-spec get(doc(), path(), Default :: term(), [option()]) -> term().
get(Doc, Path, Default, Opts) ->
    case fetch(Doc, Path, Opts) of
        {ok, Value} -> Value;
        error -> Default
    end.

%% @doc `{ok, Value}' of what is at a path, or `error'.
-spec fetch(doc(), path()) -> {ok, term()} | error.
fetch(Doc, Path) -> fetch(Doc, Path, []).

%% @doc The same, with options as of {@link get/4}.
-spec fetch(doc(), path(), [option()]) -> {ok, term()} | error.
fetch(Doc, Path, Opts) ->
    {Kind, NewAtoms} = options(Opts, [kind, atoms]),
    case causeway_nif:doc_get(Doc, Path, Kind, NewAtoms) of
        absent -> error;
        {error, Reason} -> erlang:error(Reason, [Doc, Path, Opts]);
        Typed -> {ok, plain(Typed)}
    end.

%% @doc All of it, as a map.
-spec value(doc()) -> map().
value(Doc) -> value(Doc, []).

%% @doc The same, with the option `atoms'.
-spec value(doc(), [option()]) -> map().
value(Doc, Opts) ->
    {nil, _} = options(Opts, [atoms]),
    {ok, Value} = fetch(Doc, [], Opts),
    Value.

%% @doc Whether the first set at a path has an element.
-spec is_member(doc(), path(), term()) -> boolean().
is_member(Doc, Path, Element) -> is_member(Doc, Path, Element, []).

%% @doc Whether the set of the kind in `Opts' has it.
-spec is_member(doc(), path(), term(), [option()]) -> boolean().
is_member(Doc, Path, Element, Opts) ->
    {Kind, _} = options(Opts, [kind]),
    or_raise(causeway_nif:doc_member(Doc, Path, Element, Kind), [Doc, Path, Element, Opts]) =:= true.

%% @doc The rights in a bounded counter, of this replica and of all others.
-spec rights(doc(), path()) -> {non_neg_integer(), non_neg_integer()}.
rights(Doc, Path) ->
    case causeway_nif:doc_rights(Doc, Path) of
        absent -> {0, 0};
        {error, Reason} -> erlang:error(Reason, [Doc, Path]);
        Rights -> Rights
    end.

%% @doc Everything either has seen, for the replica of the first.
-spec merge(doc(), doc()) -> {ok, doc()} | error().
merge(A, B) -> ok(causeway_nif:doc_merge(A, B)).

%% @doc What has changed since a clock, or since an earlier document.
-spec delta(doc(), clock() | doc()) -> {ok, binary()} | error().
delta(Doc, Since) when is_binary(Since) -> ok(causeway_nif:doc_delta(Doc, Since));
delta(Doc, Since) -> ok(causeway_nif:doc_delta_between(Since, Doc)).

%% @doc Takes in a delta or an encoded document.
-spec apply_delta(doc(), binary()) -> {ok, doc()} | error().
apply_delta(Doc, Delta) -> ok(causeway_nif:doc_apply(Doc, Delta)).

%% @doc One delta for two that overlap or adjoin.
-spec join_deltas(binary(), binary()) -> {ok, binary()} | error().
join_deltas(A, B) -> ok(causeway_nif:fragment_join(A, B)).

%% @doc The changes from one document to another; `absent' for nothing.
-spec diff(doc(), doc()) -> [change()].
diff(Old, New) -> diff(Old, New, []).

%% @doc The same, with the option `atoms'.
-spec diff(doc(), doc(), [option()]) -> [change()].
diff(Old, New, Opts) ->
    {nil, NewAtoms} = options(Opts, [atoms]),
    Changes = or_raise(causeway_nif:doc_diff(Old, New, NewAtoms), [Old, New, Opts]),
    [{Path, Kind, plain_side(A), plain_side(B)} || {Path, Kind, A, B} <- Changes].

%% @doc What the document has seen.
-spec clock(doc()) -> clock().
clock(Doc) -> or_raise(causeway_nif:doc_clock(Doc), [Doc]).

%% @doc The hash of the content, 16 bytes.
-spec hash(doc()) -> binary().
hash(Doc) -> causeway_nif:doc_hash(Doc).

%% @doc The whole state as bytes.
-spec encode(doc()) -> binary().
encode(Doc) -> or_raise(causeway_nif:doc_encode(Doc), [Doc]).

%% @doc A document of encoded bytes.
-spec decode(binary(), replica()) -> {ok, doc()} | error().
decode(Bytes, Replica) -> apply_delta(new(Replica), Bytes).

%% @doc The replica, the number of cells, the bytes of memory.
-spec info(doc()) -> {replica(), non_neg_integer(), non_neg_integer()}.
info(Doc) -> or_raise(causeway_nif:doc_info(Doc), [Doc]).

%% @doc A sentence about what {@link error()} or an exception holds. It does not show operations whole, which may
%% be of any size.
-spec format_error(reason() | term()) -> unicode:chardata().
format_error(enomem) -> "out of memory; the document is unchanged";
format_error(etruncated) -> format_error(emalformed);
format_error(emalformed) -> "the bytes are damaged, or are no document, delta or clock";
format_error(eversion) -> "the bytes are of a newer format than this release reads";
format_error(egap) -> "writes between the two deltas are in neither, or both begin apart";
format_error(eduplicate) -> "two documents have been edited under the same replica name at the same time";
format_error(ereplica) -> "two replica names have the same id; rename one of them";
format_error(eclock) -> "the older document has seen writes that the newer one has not; merge them first";
format_error(erange) -> "a number is out of range: they end at 2^62 - 1";
format_error(elimit) -> too_large("it");
format_error({ekind, {Op, Fields, Have, Want}}) ->
    io_lib:format(
        "operation ~b is for a ~s, but after ~b fields its path holds a ~s",
        [Op, kind(Want), Fields, kind(Have)]
    );
format_error({eop, {Op, Kind}}) ->
    io_lib:format("operation ~b cannot be done to a ~s", [Op, kind(Kind)]);
format_error({epath, {Op, _}}) ->
    io_lib:format("the path of operation ~b is empty or too long", [Op]);
format_error({erights, {Op, Here, Elsewhere}}) ->
    io_lib:format(
        "operation ~b needs more rights than the ~b left at this replica; others hold ~b, which they can give "
        "with transfer",
        [Op, Here, Elsewhere]
    );
format_error({erange, Op}) ->
    [
        operation(Op),
        " has a number out of range: what one replica has added to a counter, and what it has taken, end at "
        "2^62 - 1 each, and a transfer is of 0 at least"
    ];
format_error({elimit, Op}) -> too_large(operation(Op));
format_error({egap, {Replica, Seen, Needed}}) ->
    io_lib:format(
        "the delta builds on write ~b of replica ~s, but only ~b have been seen here",
        [Needed, short(Replica), Seen]
    );
format_error({bad_op, Term}) -> [short(Term), " is no operation"];
format_error({bad_path, Term}) -> [short(Term), ": a path must be a list of 1 to 64 terms"];
format_error({bad_term, {Term, _}}) ->
    [
        short(Term),
        " cannot be kept in a document: only atoms, numbers, binaries, and proper lists, tuples and maps of "
        "them mean the same on every node"
    ];
format_error({bad_replica, Term}) ->
    [
        short(Term),
        " cannot name a replica: that takes a binary of at most 1 KiB, or an atom other than nil, true and false"
    ];
format_error({bad_entry, Term}) ->
    [short(Term), " cannot be in a clock: that takes a replica's name and a number from 0 to 2^62 - 1"];
format_error({bad_option, Option}) ->
    [short(Option), " is no option here; there are {kind, Kind} and {atoms, create}"];
format_error({unknown_atom, Name}) ->
    ["the atom ", short(Name), " does not exist in this VM; pass {atoms, create} if the writer is trusted"];
format_error(Other) ->
    short(Other).

too_large(What) ->
    [
        What,
        " is too large: path and element may take 8 KiB encoded, a value 64 MiB, an integer 64 KiB, nesting 64 "
        "levels"
    ].

operation(At) when is_integer(At) -> io_lib:format("operation ~b", [At]);
operation(Op) when is_tuple(Op), tuple_size(Op) > 0 -> ["an operation ", short(element(1, Op))];
operation(Op) -> short(Op).

kind(nil) -> "map";
kind(Kind) -> atom_to_list(Kind).

%% Parts may be shared, which makes a small term print for ever, and one integer can be a million digits.
short(Term) -> io_lib:format("~0tP", [cut(Term, 4), 20], [{chars_limit, 300}]).

cut(Term, 0) when is_tuple(Term); is_list(Term); is_map(Term) -> '...';
cut(N, _) when is_integer(N), (N >= 1 bsl 256 orelse N =< -(1 bsl 256)) -> '...';
cut(Tuple, Depth) when is_tuple(Tuple), tuple_size(Tuple) =< 8 ->
    list_to_tuple([cut(Part, Depth - 1) || Part <- tuple_to_list(Tuple)]);
cut(Tuple, _) when is_tuple(Tuple) -> '...';
cut([Head | Tail], Depth) -> cut_list([Head | Tail], Depth - 1, 8);
cut(Map, Depth) when is_map(Map), map_size(Map) =< 8 ->
    maps:from_list([{cut(K, Depth - 1), cut(V, Depth - 1)} || {K, V} <- maps:to_list(Map)]);
cut(Map, _) when is_map(Map) -> '...';
cut(Bytes, _) when is_binary(Bytes), byte_size(Bytes) > 100 -> binary_part(Bytes, 0, 100);
cut(Bits, _) when is_bitstring(Bits), bit_size(Bits) > 800 -> '...';
cut(Other, _) -> Other.

cut_list([_ | _], _, 0) -> ['...'];
cut_list([Head | Tail], Depth, N) -> [cut(Head, Depth) | cut_list(Tail, Depth, N - 1)];
cut_list(End, Depth, _) -> cut(End, max(Depth, 0)).

%% `{Kind or nil, whether atoms may be made}'.
options(Opts, Takes) when is_list(Opts) -> options(Opts, Takes, {nil, false});
options(Opts, _) -> erlang:error({bad_option, Opts}).

options([], _, Read) -> Read;
options([{Name, Value} = Option | Rest], Takes, {Kind, NewAtoms}) ->
    case lists:member(Name, Takes) of
        true when Name =:= kind, is_atom(Value) ->
            is_kind(Value) orelse erlang:error({bad_option, Option}),
            options(Rest, Takes, {Value, NewAtoms});
        true when Name =:= atoms, Value =:= create ->
            options(Rest, Takes, {Kind, true});
        _ ->
            erlang:error({bad_option, Option})
    end;
options([Option | _], _, _) -> erlang:error({bad_option, Option});
options(Tail, _, _) -> erlang:error({bad_option, Tail}).

is_kind(Kind) ->
    lists:member(Kind, [
        map, map_grow, set, set_grow, set_remove_wins, counter, counter_bounded, register, register_multi,
        flag, flag_disable_wins
    ]).

or_raise({error, Reason}, Args) -> erlang:error(Reason, Args);
or_raise(Result, _) -> Result.

ok({error, _} = Error) -> Error;
ok(Result) -> {ok, Result}.

plain({Kind, Fields}) when Kind =:= map; Kind =:= map_grow ->
    maps:map(fun(_Field, Typed) -> plain(Typed) end, Fields);
plain({_Kind, Value}) ->
    Value.

plain_side(absent) -> absent;
plain_side(Elements) when is_list(Elements) -> Elements;
plain_side(Typed) -> plain(Typed).
