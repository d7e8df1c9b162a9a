%% @doc Documents that merge, for Erlang. See `Causeway.Doc' (lib/causeway/doc.ex) for what a document is, its
%% kinds and operations; terms, operations and errors are the same here, but for the forms of a few values:
%% nothing is `undefined', a set is a sorted list in the order of FORMAT.md, a clock is its bytes, and
%% failures are `{error, Reason}' as `causeway_nif' gives them.
-module(causeway_doc).

-export([
    new/1,
    fork/2,
    update/2,
    update/3,
    get/2, get/3,
    fetch/2,
    value/1,
    is_member/3,
    rights/2,
    merge/2,
    delta/2,
    apply_delta/2,
    join_deltas/2,
    diff/2,
    clock/1,
    hash/1,
    encode/1,
    decode/2,
    info/1
]).

-export_type([doc/0, replica/0, path/0, op/0, kind/0, clock/0, change/0, error/0]).

-type doc() :: causeway_nif:doc().
-type replica() :: causeway_nif:name().
-type path() :: causeway_nif:path().
-type kind() :: causeway_nif:kind().
-type clock() :: binary().
-type change() :: causeway_nif:change().
-type error() :: causeway_nif:error().
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
-spec new(replica()) -> doc() | error().
new(Replica) -> causeway_nif:doc_new(Replica).

%% @doc The same content, to be edited under another name.
-spec fork(doc(), replica()) -> doc() | error().
fork(Doc, Replica) -> causeway_nif:doc_fork(Doc, Replica).

%% @doc One operation, or several as one edit, all or none.
-spec update(doc(), op() | [op()]) -> {ok, doc()} | error().
update(Doc, Ops) -> ok(causeway_nif:doc_update(Doc, Ops)).

%% @doc The same by who has read `Seen', an earlier state: what has come since is left alone.
-spec update(doc(), doc(), op() | [op()]) -> {ok, doc()} | error().
update(Doc, Seen, Ops) -> ok(causeway_nif:doc_update(Doc, Seen, Ops)).

%% @doc What is at a path, or `undefined'.
-spec get(doc(), path()) -> term().
get(Doc, Path) -> get(Doc, Path, undefined).

-spec get(doc(), path(), term()) -> term().
get(Doc, Path, Default) ->
    case fetch(Doc, Path) of
        {ok, Value} -> Value;
        error -> Default
    end.

-spec fetch(doc(), path()) -> {ok, term()} | error.
fetch(Doc, Path) ->
    case causeway_nif:doc_get(Doc, Path, nil, false) of
        absent -> error;
        {error, Reason} -> erlang:error(Reason, [Doc, Path]);
        Typed -> {ok, plain(Typed)}
    end.

%% @doc All of it, as a map.
-spec value(doc()) -> map().
value(Doc) ->
    {ok, Value} = fetch(Doc, []),
    Value.

%% @doc Whether the set at a path has an element.
-spec is_member(doc(), path(), term()) -> boolean().
is_member(Doc, Path, Element) ->
    case causeway_nif:doc_member(Doc, Path, Element, nil) of
        {error, Reason} -> erlang:error(Reason, [Doc, Path, Element]);
        Answer -> Answer =:= true
    end.

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
diff(Old, New) ->
    case causeway_nif:doc_diff(Old, New, false) of
        {error, Reason} -> erlang:error(Reason, [Old, New]);
        Changes -> [{Path, Kind, plain_side(A), plain_side(B)} || {Path, Kind, A, B} <- Changes]
    end.

%% @doc What the document has seen.
-spec clock(doc()) -> clock() | error().
clock(Doc) -> causeway_nif:doc_clock(Doc).

%% @doc The hash of the content, 16 bytes.
-spec hash(doc()) -> binary().
hash(Doc) -> causeway_nif:doc_hash(Doc).

%% @doc The whole state as bytes.
-spec encode(doc()) -> binary() | error().
encode(Doc) -> causeway_nif:doc_encode(Doc).

%% @doc A document of encoded bytes.
-spec decode(binary(), replica()) -> {ok, doc()} | error().
decode(Bytes, Replica) ->
    case causeway_nif:doc_new(Replica) of
        {error, _} = Error -> Error;
        Doc -> apply_delta(Doc, Bytes)
    end.

%% @doc The replica, the number of cells, the bytes of memory.
-spec info(doc()) -> {replica(), non_neg_integer(), non_neg_integer()} | error().
info(Doc) -> causeway_nif:doc_info(Doc).

ok({error, _} = Error) -> Error;
ok(Result) -> {ok, Result}.

plain({Kind, Fields}) when Kind =:= map; Kind =:= map_grow ->
    maps:map(fun(_Field, Typed) -> plain(Typed) end, Fields);
plain({_Kind, Value}) ->
    Value.

plain_side(absent) -> absent;
plain_side(Elements) when is_list(Elements) -> Elements;
plain_side(Typed) -> plain(Typed).
