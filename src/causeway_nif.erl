%% @private
%% The NIF library's stubs. Users call `causeway_doc' and `causeway_clock' (Erlang) or `Causeway.Doc' and
%% `Causeway.Clock' (Elixir), which document, check and name what these return.
-module(causeway_nif).

-export([
    doc_new/1,
    doc_fork/2,
    doc_update/2,
    doc_update/3,
    doc_merge/2,
    doc_get/4,
    doc_member/4,
    doc_rights/2,
    doc_diff/3,
    doc_encode/1,
    doc_delta/2,
    doc_remembers/2,
    doc_delta_between/2,
    doc_apply/2,
    doc_clock/1,
    doc_hash/1,
    doc_hash/2,
    doc_about/1,
    doc_info/1,
    fragment_join/2,
    clock_merge/2,
    clock_compare/2,
    clock_get/2,
    clock_to_list/2,
    clock_from_list/1,
    hlc_tick/2,
    doc_news/4,
    doc_symbols/5,
    symbols_peel/2,
    doc_find/2,
    file_lock/1,
    pg_codec_compile/3,
    pg_encode/2,
    pg_encode_rows/2,
    pg_decode_rows/4,
    pg_wal_decode/6,
    pg_uuid_text/1
]).

-nifs([
    doc_new/1,
    doc_fork/2,
    doc_update/2,
    doc_update/3,
    doc_merge/2,
    doc_get/4,
    doc_member/4,
    doc_rights/2,
    doc_diff/3,
    doc_encode/1,
    doc_delta/2,
    doc_remembers/2,
    doc_delta_between/2,
    doc_apply/2,
    doc_clock/1,
    doc_hash/1,
    doc_hash/2,
    doc_about/1,
    doc_info/1,
    fragment_join/2,
    clock_merge/2,
    clock_compare/2,
    clock_get/2,
    clock_to_list/2,
    clock_from_list/1,
    hlc_tick/2,
    doc_news/4,
    doc_symbols/5,
    symbols_peel/2,
    doc_find/2,
    file_lock/1,
    pg_codec_compile/3,
    pg_encode/2,
    pg_encode_rows/2,
    pg_decode_rows/4,
    pg_wal_decode/6,
    pg_uuid_text/1
]).

-on_load(load/0).

-export_type([doc/0, error/0, kind/0, name/0, path/0, typed/0, change/0]).
-export_type([pg_codec/0, pg_spec/0, pg_refusal/0]).

-type doc() :: reference().
-type name() :: binary() | atom().
-type path() :: [term()].
-type kind() ::
    map
    | map_grow
    | set
    | set_grow
    | set_remove_wins
    | counter
    | counter_bounded
    | register
    | register_multi
    | flag
    | flag_disable_wins.
-type typed() :: {kind(), term()}.
-type change() :: {path(), kind(), term(), term()}.
-type error() :: {error, atom() | {atom(), term()}}.

-type pg_codec() :: reference().
-type pg_spec() ::
    atom()
    | {array | vector, Oid :: non_neg_integer(), pg_spec()}
    | {range | multirange, pg_spec()}
    | {composite, [{Oid :: non_neg_integer(), pg_spec()}]}.
%% A parameter's number, the kind it is for, what is wrong, and the part of the term it is about.
-type pg_refusal() ::
    {non_neg_integer(), atom(), atom(), term()}
    | {count, non_neg_integer(), non_neg_integer()}
    | {list, term()}.

%% Trees live as long as the VM and an upgraded library goes on with them, so the secret of their shape is
%% made once and kept.
load() ->
    Secret =
        case persistent_term:get(?MODULE, undefined) of
            undefined ->
                New = rand:uniform(1 bsl 60),
                persistent_term:put(?MODULE, New),
                New;
            Old ->
                Old
        end,
    erlang:load_nif(path(), Secret).

path() ->
    case os:getenv("CAUSEWAY_NIF") of
        false -> filename:join(priv_dir(), "causeway_nif");
        Path -> filename:rootname(Path, ".so")
    end.

priv_dir() ->
    case code:priv_dir(causeway) of
        {error, bad_name} ->
            filename:join(filename:dirname(filename:dirname(code:which(?MODULE))), "priv");
        Dir ->
            Dir
    end.

-spec doc_new(name()) -> doc() | error().
doc_new(_Name) -> erlang:nif_error(not_loaded).

-spec doc_fork(doc(), name()) -> doc() | error().
doc_fork(_Doc, _Name) -> erlang:nif_error(not_loaded).

-spec doc_update(doc(), tuple() | [tuple()]) -> doc() | error().
doc_update(_Doc, _Ops) -> erlang:nif_error(not_loaded).

%% As of an earlier state: what came since is not replaced or removed.
-spec doc_update(doc(), doc(), tuple() | [tuple()]) -> doc() | error().
doc_update(_Doc, _Seen, _Ops) -> erlang:nif_error(not_loaded).

-spec doc_merge(doc(), doc()) -> doc() | error().
doc_merge(_A, _B) -> erlang:nif_error(not_loaded).

%% The kind wanted, or nil for any; whether atoms new to this VM may be made.
-spec doc_get(doc(), path(), kind() | nil, boolean()) -> typed() | absent | error().
doc_get(_Doc, _Path, _Kind, _NewAtoms) -> erlang:nif_error(not_loaded).

%% In the set of this kind, or with nil the first one there.
-spec doc_member(doc(), path(), term(), kind() | nil) -> boolean() | absent | error().
doc_member(_Doc, _Path, _Element, _Kind) -> erlang:nif_error(not_loaded).

%% Rights of this replica, and of all others together.
-spec doc_rights(doc(), path()) -> {non_neg_integer(), non_neg_integer()} | absent | error().
doc_rights(_Doc, _Path) -> erlang:nif_error(not_loaded).

-spec doc_diff(doc(), doc(), boolean()) -> [change()] | error().
doc_diff(_Old, _New, _NewAtoms) -> erlang:nif_error(not_loaded).

-spec doc_encode(doc()) -> binary() | error().
doc_encode(_Doc) -> erlang:nif_error(not_loaded).

-spec doc_delta(doc(), binary()) -> binary() | error().
doc_delta(_Doc, _Clock) -> erlang:nif_error(not_loaded).

%% Whether a delta since the clock would be less than the whole state.
-spec doc_remembers(doc(), binary()) -> boolean() | error().
doc_remembers(_Doc, _Clock) -> erlang:nif_error(not_loaded).

-spec doc_delta_between(doc(), doc()) -> binary() | error().
doc_delta_between(_Old, _New) -> erlang:nif_error(not_loaded).

-spec doc_apply(doc(), binary()) -> doc() | error().
doc_apply(_Doc, _Fragment) -> erlang:nif_error(not_loaded).

-spec doc_clock(doc()) -> binary() | error().
doc_clock(_Doc) -> erlang:nif_error(not_loaded).

-spec doc_hash(doc()) -> binary().
doc_hash(_Doc) -> erlang:nif_error(not_loaded).

%% Of what is at a path and below.
-spec doc_hash(doc(), path()) -> binary() | error().
doc_hash(_Doc, _Path) -> erlang:nif_error(not_loaded).

%% The replica's name and the number of cells, which takes no time.
-spec doc_about(doc()) -> {name(), non_neg_integer()}.
doc_about(_Doc) -> erlang:nif_error(not_loaded).

%% The replica's name, the number of cells, bytes of memory.
-spec doc_info(doc()) -> {name(), non_neg_integer(), non_neg_integer()} | error().
doc_info(_Doc) -> erlang:nif_error(not_loaded).

-spec fragment_join(binary(), binary()) -> binary() | error().
fragment_join(_A, _B) -> erlang:nif_error(not_loaded).

-spec clock_merge(binary(), binary()) -> binary() | error().
clock_merge(_A, _B) -> erlang:nif_error(not_loaded).

-spec clock_compare(binary(), binary()) -> equal | before | 'after' | concurrent | error().
clock_compare(_A, _B) -> erlang:nif_error(not_loaded).

-spec clock_get(binary(), name()) -> non_neg_integer() | error().
clock_get(_Clock, _Name) -> erlang:nif_error(not_loaded).

-spec clock_to_list(binary(), boolean()) -> [{name(), pos_integer()}] | error().
clock_to_list(_Clock, _NewAtoms) -> erlang:nif_error(not_loaded).

-spec clock_from_list([{name(), non_neg_integer()}]) -> binary() | error().
clock_from_list(_List) -> erlang:nif_error(not_loaded).

-spec hlc_tick(non_neg_integer(), non_neg_integer()) -> non_neg_integer() | error().
hlc_tick(_Last, _NowMs) -> erlang:nif_error(not_loaded).

%% Makes the file if need be, and locks it until the reference is collected.
-spec file_lock(binary()) -> {ok, reference()} | {error, locked | file:posix() | enomem}.
file_lock(_Path) -> erlang:nif_error(not_loaded).

%% What cw_reconcile.h says. Keys are encoded keys.

%% The cells with writes that are not in the clock, and those at the keys (sorted): a fragment. Without
%% bodies, the keys alone.
-spec doc_news(doc(), Clock :: binary(), Keys :: [binary()], Bodies :: boolean()) -> binary() | error().
doc_news(_Doc, _Clock, _Keys, _Bodies) -> erlang:nif_error(not_loaded).

%% Symbols of the sketch of the cells, but those at the keys of two fragments.
-spec doc_symbols(doc(), binary(), binary(), From :: non_neg_integer(), N :: non_neg_integer()) ->
    binary() | error().
doc_symbols(_Doc, _KeysA, _KeysB, _From, _N) -> erlang:nif_error(not_loaded).

%% The hashes that are only in the first of two sketches; or about how many differ, when these symbols are too few.
-spec symbols_peel(Theirs :: binary(), Ours :: binary()) -> binary() | non_neg_integer() | error().
symbols_peel(_Theirs, _Ours) -> erlang:nif_error(not_loaded).

%% The keys of the cells with these hashes, 8 bytes each.
-spec doc_find(doc(), binary()) -> [binary()] | error().
doc_find(_Doc, _Hashes) -> erlang:nif_error(not_loaded).

%% PostgreSQL's types: what pg_codec.h says.

%% Columns with their type modifiers, the types that records may hold, and any of the atoms copy, reference,
%% postgrex, causeway, decimal, numeric, interval, duration.
-spec pg_codec_compile([{integer(), pg_spec()}], [{pos_integer(), pg_spec()}], [atom()]) ->
    pg_codec() | error().
pg_codec_compile(_Columns, _Known, _Options) -> erlang:nif_error(not_loaded).

-spec pg_encode(pg_codec(), [term()]) -> binary() | {error, pg_refusal() | atom()}.
pg_encode(_Codec, _Params) -> erlang:nif_error(not_loaded).

-spec pg_encode_rows(pg_codec(), [[term()]]) ->
    binary() | {error, {row, non_neg_integer(), pg_refusal()} | atom()}.
pg_encode_rows(_Codec, _Rows) -> erlang:nif_error(not_loaded).

-spec pg_decode_rows(pg_codec(), binary(), non_neg_integer(), [[term()]]) -> [[term()]] | error().
pg_decode_rows(_Codec, _Bytes, _N, _Tail) -> erlang:nif_error(not_loaded).

%% Transactions of the write-ahead log: what pg_wal.h says.

-spec pg_wal_decode(pg_codec(), Session, Stream, binary(), pos_integer(), non_neg_integer()) ->
    {done, [Block]}
    | {more, [Block], pos_integer(), non_neg_integer()}
    | {schema, [Block], Schema :: tuple(), pos_integer(), non_neg_integer()}
    | {error, term()}
when
    Session :: #{non_neg_integer() => {pg_codec(), term(), tuple(), binary()}},
    Stream :: Session,
    Block :: tuple().
pg_wal_decode(_Text, _Session, _Stream, _Frame, _Block, _Message) -> erlang:nif_error(not_loaded).

%% The 16 bytes of a uuid as text, in lower case.

-spec pg_uuid_text(<<_:128>>) -> <<_:288>>.
pg_uuid_text(_Uuid) -> erlang:nif_error(not_loaded).
