-module(smoke).
-export([run/0]).

run() ->
    ok = application:load(causeway),
    {ok, Modules} = application:get_key(causeway, modules),
    [{module, M} = code:ensure_loaded(M) || M <- Modules],
    {ok, Version} = application:get_key(causeway, vsn),
    io:format("causeway ~s, ~b modules loaded~n", [Version, length(Modules)]).
