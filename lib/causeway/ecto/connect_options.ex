if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.ConnectOptions do
    @moduledoc false
    # A repository's configuration: what of it is a connection's, in the names that this has.

    alias Causeway.Postgres.Options

    # Ecto's, which would be something else here. A connection string or URI of libpq's has another name, because Ecto
    # takes `:url` apart, and that knows one host only.
    @ecto ~w(url name)a

    @doc "Raises an `ArgumentError` that names an option that cannot be."
    def check!(opts) do
      check_deadline!(opts)
      opts |> known() |> Options.split!()
      :ok
    end

    @doc "The same of `:cancel_after`, which may stand in a repository's configuration and with each query."
    def check_deadline!(opts) do
      case Keyword.get(opts, :cancel_after) do
        none when none in [nil, :infinity] ->
          :ok

        ms when is_integer(ms) and ms > 0 and ms <= 0xFFFFFFFF ->
          :ok

        other ->
          raise ArgumentError,
                "option :cancel_after: expected a number of milliseconds, from 1, or :infinity, got #{inspect(other)}"
      end
    end

    @doc "The options, with those of older names in the newer ones."
    def known(opts) do
      opts |> Keyword.drop(@ecto) |> conninfo() |> search_path() |> ssl()
    end

    defp conninfo(opts) do
      case Keyword.pop(opts, :conninfo) do
        {nil, opts} -> opts
        {conninfo, opts} -> [url: conninfo] ++ opts
      end
    end

    defp search_path(opts) do
      case Keyword.pop(opts, :search_path) do
        {nil, opts} ->
          opts

        {path, opts} when is_list(path) ->
          Keyword.update(opts, :parameters, [search_path: Enum.join(path, ", ")], fn others ->
            Keyword.put(others, :search_path, Enum.join(path, ", "))
          end)

        {other, _} ->
          raise ArgumentError,
                "option :search_path: expected a list of strings, got #{inspect(other)}"
      end
    end

    defp ssl(opts) do
      case Keyword.pop(opts, :ssl_opts) do
        {nil, opts} -> opts
        {list, opts} -> if opts[:ssl] == true, do: Keyword.put(opts, :ssl, list), else: opts
      end
    end

    @doc "Those of `Causeway.Postgres.Types`."
    def types(opts) do
      [json: json(opts), interval_decode_type: interval(opts)] ++
        Keyword.take(opts, [:decode_binary])
    end

    defp interval(opts), do: opts[:interval_decode_type] || decoded(opts[:types])

    # A module that Postgrex.Types.define/3 has made does not tell its options; what it makes of an interval does.
    defp decoded(nil), do: nil

    defp decoded(types) do
      none = <<16::32, 0::64, 0::32, 0::32>>
      [%type{}] = types.decode_list(none, {Postgrex.Extensions.Interval, nil})
      type
    rescue
      # It has none, or its release of Postgrex does so otherwise.
      _ in [CaseClauseError, FunctionClauseError, MatchError, UndefinedFunctionError] -> nil
    end

    # The one that Postgrex is configured with is the one that Ecto uses elsewhere, too.
    defp json(opts) do
      library = opts[:json_library] || Application.get_env(:postgrex, :json_library)

      if library && Code.ensure_loaded?(library),
        do: library,
        else: Causeway.Postgres.Json.library()
    end
  end
end
